"""MemoryLLM against a plain loop of its equations: pools by hand, rows one by one; what is dropped, and where gradients end."""

from __future__ import annotations

import pytest
import torch

from baselines.external_memory.memoryllm import MemoryLLM
from models.layers import rotary
from models.shell.model import Size

SIZE = Size(32, 16, 2, 2)


def _model(**settings) -> MemoryLLM:
    torch.manual_seed(0)
    return MemoryLLM(SIZE, feed=24, **({"segment": 6, "pool": 5, "rows": 2} | settings)).double()


def _attend(block, h, memory):
    """One layer on rows h [b, n, D] that see memory rows [b, m, D] and one another up to themselves; a softmax a row."""
    mixer, x, m = block.mixer, block.mixer_norm(h), block.mixer_norm(memory)
    heads, before = mixer.heads, memory.shape[1]

    def split(rows):
        return rows.unflatten(-1, (heads, -1))

    k = torch.cat([rotary(split(mixer.key(m)), 0), rotary(split(mixer.key(x)), before)], 1)
    v = torch.cat([split(mixer.value(m)), split(mixer.value(x))], 1)
    q, rows = rotary(split(mixer.query(x)), before), []
    for t in range(h.shape[1]):
        seen = before + t + 1
        scores = torch.einsum("bhd,bjhd->bhj", q[:, t], k[:, :seen]) / q.shape[-1] ** 0.5
        rows.append(torch.einsum("bhj,bjhd->bhd", scores.softmax(-1), v[:, :seen]).flatten(1))
    h = h + mixer.out(torch.stack(rows, 1))
    return h + block.feed(block.feed_norm(h))


def _by_the_equations(model: MemoryLLM, tokens: torch.Tensor) -> torch.Tensor:
    segments, found = model.embedding(tokens).split(model.segment, 1), []
    pools = [rows.expand(len(tokens), -1, -1) for rows in model.pool]
    for update, segment in enumerate(segments):
        h = segment
        for block, pool in zip(model.blocks, pools, strict=True):
            h = _attend(block, h, pool)
        found.append(model.norm(h) @ model.embedding.weight.T)
        if update + 1 == len(segments):
            break
        x = segment
        for layer, block in enumerate(model.blocks):
            marked = x.clone()
            marked[:, -model.rows :] += model.fresh
            x = _attend(block, marked, pools[layer][:, -model.rows :])
            kept = [i for i in range(pools[layer].shape[1]) if i in model._kept(update, layer)]
            pools[layer] = torch.cat([pools[layer].detach()[:, kept], x[:, -model.rows :]], 1)
    return torch.cat(found, 1)


@pytest.mark.parametrize("time", [1, 6, 7, 20])
def test_it_is_the_equations_forward_and_backward(time):
    model = _model()
    tokens = torch.randint(32, (2, time), generator=torch.Generator().manual_seed(time))
    found, expected = [], []
    for read, kept in ((lambda: model(tokens)[0], found), (lambda: _by_the_equations(model, tokens), expected)):
        model.zero_grad(set_to_none=True)
        logits = read()
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=torch.double).view_as(logits)).sum().backward()
        kept += [logits.detach(), *(p.grad for p in model.parameters())]
    for a, b in zip(found, expected, strict=True):
        assert (a is None or not a.abs().any()) if b is None else torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_what_an_update_drops_follows_from_seed_update_and_layer_alone():
    model, other = _model(pool=40, rows=8, segment=8), _model(pool=40, rows=8, segment=8, seed=1)
    kept = [model._kept(update, layer) for update in range(3) for layer in range(2)]
    assert all(len(one) == 32 and one == sorted(set(one)) for one in kept)
    assert len({tuple(one) for one in kept}) == 6 and kept[0] != other._kept(0, 0)
    assert kept[0] == _model(pool=40, rows=8, segment=8)._kept(0, 0)


def test_old_rows_are_forgotten_at_the_papers_rate():
    """(1 - K / N)^n of the rows survive n updates."""
    model, alive, counts = _model(pool=64, rows=8, segment=8), list(range(64)), []
    for update in range(6):
        rows = [alive[i] for i in model._kept(update, 0)] + [-1] * 8
        alive = rows
        counts.append(sum(row >= 0 for row in rows))
    assert counts[0] == 56 and counts[-1] == pytest.approx(64 * (1 - 8 / 64) ** 6, abs=6)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="1 <= rows"):
        _model(rows=7)
