"""MemoryLLM's pool on a trained model against its equations, a segment and a head at a time in float64; and without rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import baselines  # noqa: F401  registers every model
from baselines.external_memory.pool_layer import kept
from models.language_model import Size, seeded
from models.layers import rotary

SIZE, WINDOW, POOL, ROWS = Size(32, 16, 2, 2), 6, 5, 2


def model(**settings):
    settings = {"base_settings": {"window": WINDOW}, "pool": POOL, "rows": ROWS, **settings}
    return seeded("memoryllm-frozen", SIZE, 0, **settings).double().eval()


def text(time: int, rows: int = 2) -> Tensor:
    return torch.randint(SIZE.vocab, (rows, time), generator=torch.Generator().manual_seed(1))


def layer(block, memory: Tensor, x: Tensor, place, first) -> Tensor:
    """A block over rows x [t, D] behind memory rows [n, D], j of both at place(j): i sees the memory and rows first(i) to i."""
    n, mixer = len(memory), block.mixer
    parts = mixer.qkv(block.mixer_norm(torch.cat([memory, x]))).unflatten(-1, (3, SIZE.heads, -1))
    q, k, v = parts.unbind(1)
    seen = torch.arange(len(parts))
    ys = []
    for i in range(len(x)):
        shown = torch.cat([seen[:n], seen[n + first(i) : n + i + 1]])
        heads = []
        for h in range(SIZE.heads):
            query = rotary(q[None, n + i : n + i + 1, h : h + 1], place(n + i))[0, 0, 0]
            keys = [rotary(k[None, j : j + 1, h : h + 1], place(int(j)))[0, 0, 0] for j in shown]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(len(query))
            heads.append(scores.softmax(0) @ v[shown, h])
        ys.append(torch.cat(heads))
    x = x + mixer.out(torch.stack(ys))
    return x + block.feed(block.feed_norm(x))


def loop(memory, tokens: Tensor) -> Tensor:
    """Logits [t, vocab] of one row."""
    embedded, blocks = memory.embedding(tokens), memory.blocks
    inputs = [[embedded[:0]] for _ in blocks]  # of each layer, all rows so far
    pools, hidden = [embedded[:0] for _ in blocks], []
    for number, part in enumerate(embedded.split(WINDOW)):
        x, start = part, number * WINDOW
        for index, block in enumerate(blocks):
            inputs[index].append(x)
            past = torch.cat(inputs[index])
            x = _window(block, pools[index], past, start)
        hidden.append(x)
        if len(part) < WINDOW:
            break
        x, after = part, []
        for index, (block, pool) in enumerate(zip(blocks, pools, strict=True)):
            newest = pool[-ROWS:]
            x = layer(block, newest, x, lambda place: place, lambda i: 0)
            if number:
                after.append(torch.cat([pool[kept(POOL, ROWS, 0, number, index)], x[-ROWS:]]))
            else:
                after.append(x[-ROWS:].repeat(3, 1)[-POOL:])
        pools = after
    return memory.base.norm(torch.cat(hidden)) @ memory.embedding.weight.T


def _window(block, pool: Tensor, rows: Tensor, start: int) -> Tensor:
    """The rows from `start` on: each sees the pool, at the places before `start`, and the window of rows up to its own."""
    begin, n = max(0, start - WINDOW + 1), len(pool)
    place = lambda j: start - n + j if j < n else begin + j - n  # noqa: E731
    return layer(block, pool, rows[begin:], place, lambda i: max(0, i - WINDOW + 1))[start - begin :]


@pytest.mark.parametrize("time", [3 * WINDOW + 4, 2 * WINDOW])
def test_it_is_the_loop_over_segments(time):
    memory, tokens = model(), text(time)
    with torch.no_grad():
        expected = torch.stack([loop(memory, row) for row in tokens])
        for cuts in ([time], [1, 5, 6, time - 12], [1] * time):
            logits, state = [], None
            for piece in tokens.split(cuts, 1):
                some, state = memory(piece, state)
                logits.append(some)
            assert (torch.cat(logits, 1) - expected).abs().max() < 1e-12


def test_without_rows_and_in_training_it_is_its_base():
    tokens = text(3 * WINDOW)
    bare, memory = model(pool=0), model()
    torch.testing.assert_close(bare(tokens)[0], bare.base(tokens)[0])
    assert not torch.allclose(memory(tokens)[0][:, WINDOW:], memory.base(tokens)[0][:, WINDOW:])
    torch.testing.assert_close(memory(tokens)[0][:, :WINDOW], memory.base(tokens)[0][:, :WINDOW])
    assert torch.equal(memory.train()(tokens)[0], memory.base(tokens)[0])


def test_it_hears_what_has_left_the_window():
    """Two layers of windows reach back ten tokens; the pool reaches the first."""
    memory, tokens = model(), text(3 * WINDOW)
    other = tokens.clone()
    other[:, WINDOW - 1] = (other[:, WINDOW - 1] + 1) % SIZE.vocab
    assert torch.equal(memory.base(tokens)[0][:, -1], memory.base(other)[0][:, -1])
    assert not torch.equal(memory(tokens)[0][:, -1], memory(other)[0][:, -1])


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"rows": POOL + 1}, {"pool": -1}])
def test_wrong_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match="memoryllm-frozen needs 1 <= rows"):
        model(**wrong)


def test_base_without_a_window_is_refused():
    with pytest.raises(ValueError, match="choose the base 'transformer-window'"):
        model(base="retnet", base_settings=None)
