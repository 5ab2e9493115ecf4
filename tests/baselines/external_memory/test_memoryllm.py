"""MemoryLLM against its equations, a segment at a time in float64; what an update keeps, and where gradients reach."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

import baselines  # noqa: F401  registers every model
from models.language_model import Size, seeded
from models.layers import rotary

SIZE, SEGMENT, POOL, ROWS = Size(32, 16, 2, 2), 6, 5, 2


def model(**settings):
    return seeded("memoryllm", SIZE, 0, **{"segment": SEGMENT, "pool": POOL, "rows": ROWS, **settings}).double()


def text(time: int, rows: int = 2) -> Tensor:
    return torch.randint(SIZE.vocab, (rows, time), generator=torch.Generator().manual_seed(1))


def layer(block, memory: Tensor, x: Tensor) -> Tensor:
    """One block over a segment x [t, D] behind memory rows [n, D], a query and a head at a time."""
    mixer, n = block.mixer, len(memory)
    rows = block.mixer_norm(torch.cat([memory, x]))
    q, k, v = (part(rows).unflatten(-1, (SIZE.heads, -1)) for part in (mixer.query, mixer.key, mixer.value))
    q, k = rotary(q[None], 0)[0], rotary(k[None], 0)[0]
    ys = []
    for i in range(n, len(rows)):
        heads = []
        for h in range(SIZE.heads):
            weights = (k[: i + 1, h] @ q[i, h] / math.sqrt(q.shape[-1])).softmax(0)
            heads.append(weights @ v[: i + 1, h])
        ys.append(torch.cat(heads))
    x = x + mixer.out(torch.stack(ys))
    return x + block.feed(block.feed_norm(x))


def loop(memory, tokens: Tensor) -> Tensor:
    """Logits [t, vocab] of one row."""
    pools, hidden = list(memory.pool), []
    parts = tokens.split(SEGMENT)
    for number, part in enumerate(parts):
        x = memory.embedding(part)
        for block, pool in zip(memory.blocks, pools, strict=True):
            x = layer(block, pool, x)
        hidden.append(memory.norm(x))
        if number == len(parts) - 1:
            break
        x, after = memory.embedding(part), []
        for index, (block, pool) in enumerate(zip(memory.blocks, pools, strict=True)):
            x = torch.cat([x[:-ROWS], x[-ROWS:] + memory.fresh])
            x = layer(block, pool[-ROWS:], x)
            after.append(torch.cat([pool[memory._kept(number, index)].detach(), x[-ROWS:]]))
        pools = after
    return torch.cat(hidden) @ memory.embedding.weight.T


def test_it_is_the_loop_over_segments_outputs_and_gradients():
    memory, tokens = model(), text(3 * SEGMENT + 4)
    weights = torch.randn(
        2, tokens.shape[1], SIZE.vocab, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    expected = torch.stack([loop(memory, row) for row in tokens])
    right = torch.autograd.grad((expected * weights).sum(), list(memory.parameters()))
    for cuts in ([tokens.shape[1]], [1, 5, 7, 9]):
        logits, state = [], None
        for piece in tokens.split(cuts, 1):
            some, state = memory(piece, state)
            logits.append(some)
        found = torch.cat(logits, 1)
        assert (found - expected).abs().max() < 1e-12
        mine = torch.autograd.grad((found * weights).sum(), list(memory.parameters()))
        assert max((a - b).abs().max() for a, b in zip(mine, right, strict=True)) < 1e-10


def test_an_update_keeps_rows_in_order_and_forgets_each_equally_often():
    memory = model(pool=8)
    kept = [memory._kept(update, 0) for update in range(2000)]
    assert all(rows == sorted(set(rows)) and len(rows) == 6 for rows in kept)
    assert kept[0] != memory._kept(0, 1) or kept[1] != memory._kept(1, 1)
    shares = [count / 2000 for count in Counter(row for rows in kept for row in rows).values()]
    assert len(shares) == 8 and all(abs(share - 0.75) < 0.04 for share in shares)
    assert [model(pool=8)._kept(update, 0) for update in range(9)] == kept[:9]
    assert [model(pool=8, draw=1)._kept(update, 0) for update in range(9)] != kept[:9]


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"rows": POOL + 1}, {"segment": 1}])
def test_wrong_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match="memoryllm needs 1 <= rows"):
        model(**wrong)
