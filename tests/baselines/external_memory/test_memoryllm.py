"""MemoryLLM against its equations, a segment at a time in float64; what an update keeps, and where gradients reach."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

import baselines  # noqa: F401  registers every model
from baselines.external_memory.pool_layer import kept
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
    q, k, v = (part.unflatten(-1, (SIZE.heads, -1)) for part in mixer.qkv(rows).chunk(3, -1))
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
    for number, part in enumerate(tokens.split(SEGMENT)):
        x, new = memory.embedding(part), []
        for block, pool in zip(memory.blocks, pools, strict=True):
            x = layer(block, pool, x)
            new.append(x[-ROWS:])
        hidden.append(memory.norm(x))
        if memory.fresh is not None:  # a pass of its own
            x, new = memory.embedding(part), []
            for block, pool in zip(memory.blocks, pools, strict=True):
                x = torch.cat([x[:-ROWS], x[-ROWS:] + memory.fresh])
                x = layer(block, pool[-ROWS:], x)
                new.append(x[-ROWS:])
        stay = [pool[kept(POOL, ROWS, 0, number, index)].detach() for index, pool in enumerate(pools)]
        pools = [torch.cat(pair) for pair in zip(stay, new, strict=True)]
    return torch.cat(hidden) @ memory.embedding.weight.T


@pytest.mark.parametrize("inject", ["own", "same"])
@pytest.mark.parametrize("time", [3 * SEGMENT + 4, 3 * SEGMENT])
def test_it_is_the_loop_over_segments_outputs_and_gradients(inject, time):
    memory, tokens = model(inject=inject), text(time)
    weights = torch.randn(
        2, tokens.shape[1], SIZE.vocab, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    expected = torch.stack([loop(memory, row) for row in tokens])
    right = torch.autograd.grad((expected * weights).sum(), list(memory.parameters()))
    for cuts in ([time], [1, 5, 7, time - 13], [1] * time):
        logits, state = [], None
        for piece in tokens.split(cuts, 1):
            some, state = memory(piece, state)
            logits.append(some)
        found = torch.cat(logits, 1)
        assert (found - expected).abs().max() < 1e-12
        mine = torch.autograd.grad((found * weights).sum(), list(memory.parameters()))
        assert max((a - b).abs().max() for a, b in zip(mine, right, strict=True)) < 1e-10


def test_an_update_keeps_rows_in_order_and_forgets_each_equally_often():
    drawn = [kept(8, 2, 0, update, 0) for update in range(2000)]
    assert all(rows == sorted(set(rows)) and len(rows) == 6 for rows in drawn)
    assert drawn != [kept(8, 2, 0, update, 1) for update in range(2000)]
    shares = [count / 2000 for count in Counter(row for rows in drawn for row in rows).values()]
    assert len(shares) == 8 and all(abs(share - 0.75) < 0.04 for share in shares)
    assert [kept(8, 2, 0, update, 0) for update in range(9)] == drawn[:9]
    assert [kept(8, 2, 1, update, 0) for update in range(9)] != drawn[:9]


def test_rows_of_the_reading_need_no_vector_and_keep_less_of_the_open_segment():
    own, same = model(), model(inject="same")
    assert {name for name, _ in own.named_parameters()} - {name for name, _ in same.named_parameters()} == {"fresh"}
    tokens = text(2 * SEGMENT + 4)
    assert own(tokens)[1][2].shape == (2, 4, 16)  # embedded rows
    assert same(tokens)[1][2].shape == (2, 2, ROWS, 16)  # the last rows behind each layer


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"rows": POOL + 1}, {"segment": 1}])
def test_wrong_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match="memoryllm needs 1 <= rows"):
        model(**wrong)
