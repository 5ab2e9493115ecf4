"""RWKV-7: the whole model against a plain loop from its equations, and how it begins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.third_generation.rwkv7 import RWKV7, TimeMixing
from models.language_model import Size, build

SIZE = Size(vocab=11, width=16, depth=2, heads=2)
HEAD = SIZE.width // SIZE.heads


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """In float64, nothing at zero."""
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
    return model


def low_rank(part: torch.nn.Module, x: Tensor, between=lambda x: x) -> Tensor:
    y = between(x @ part.down) @ part.up
    return y if part.bias is None else y + part.bias


def time_mixing(layer: TimeMixing, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """One row x [t, d], token by token and head by head; the first layer's values go in and out."""
    before = torch.cat([x.new_zeros(1, SIZE.width), x[:-1]])
    xr, xw, xk, xv, xa, xg = (x + (before - x) * mix for mix in layer.mix)
    r, k, v = xr @ layer.receptance.weight.T, xk @ layer.key.weight.T, xv @ layer.value.weight.T
    # the published form of the decay: exp(-exp(-softplus(-z) - 1/2))
    w = torch.exp(-torch.exp(-F.softplus(-low_rank(layer.decay, xw, torch.tanh)) - 0.5))
    a, g = torch.sigmoid(low_rank(layer.rate, xa)), low_rank(layer.gate, xg, torch.sigmoid)
    if layer.keep is None:
        first = v
    else:
        v = v + (first - v) * torch.sigmoid(low_rank(layer.keep, xv))
    p, k = k * layer.k_k, k * (1 + (a - 1) * layer.k_a)
    ys = torch.empty_like(x)
    for head in range(SIZE.heads):
        own = slice(head * HEAD, (head + 1) * HEAD)
        state = x.new_zeros(HEAD, HEAD)
        for t in range(len(x)):
            unit = p[t, own] / p[t, own].norm()
            transition = torch.diag(w[t, own]) - torch.outer(a[t, own] * unit, unit)
            state = transition @ state + torch.outer(k[t, own], v[t, own])
            y = r[t, own] @ state
            y = (y - y.mean()) / (y.var(correction=0) + 64e-5).sqrt() * layer.norm.weight[own] + layer.norm.bias[own]
            ys[t, own] = y + (r[t, own] * k[t, own] * layer.r_k[head]).sum() * v[t, own]
    return (ys * g) @ layer.out.weight.T, first


@torch.no_grad()
def test_model_is_its_equations():
    torch.manual_seed(0)
    model = moved(RWKV7(SIZE, feed=24))
    tokens = torch.randint(SIZE.vocab, (1, 45))
    x, first = model.blocks[0].enter(model.embedding.weight[tokens[0]]), None
    for block in model.blocks:
        y, first = time_mixing(block.mixer, block.mixer_norm(x), first)
        x = x + y
        z = block.channel_norm(x)
        z = z + (torch.cat([z.new_zeros(1, SIZE.width), z[:-1]]) - z) * block.channels.mix[0]
        x = x + (z @ block.channels.key.weight.T).clamp(min=0) ** 2 @ block.channels.value.weight.T
    right = model.norm(x) @ model.embedding.weight.T
    assert (model(tokens)[0][0] - right).norm() <= 1e-12 * right.norm()


def test_every_layer_but_the_first_hears_the_first_ones_values():
    torch.manual_seed(0)
    model = moved(RWKV7(SIZE, feed=24))
    assert model.blocks[0].mixer.keep is None
    assert [isinstance(block.enter, torch.nn.LayerNorm) for block in model.blocks] == [True, False]
    x, first = (torch.randn(1, 9, SIZE.width, dtype=torch.float64) for _ in range(2))
    outputs = [model.blocks[1](x, None, values)[0] for values in (first, first + 1)]
    assert (outputs[0] - outputs[1]).norm() > 0.1


def test_model_begins_as_the_authors_trainer_makes_it():
    width, heads, depth = 128, 2, 3
    torch.manual_seed(0)
    model = build("rwkv7", Size(16, width, depth, heads), match=False)
    assert model.embedding.weight.std().item() == pytest.approx(2 / width, rel=0.1)
    for index, block in enumerate(model.blocks):
        layer, rising, falling = block.mixer, index / (depth - 1), 1 - index / depth
        for i in (0, 1, 50, 77, 127):
            place = ((i % 64) - 31.5) / 31.5
            zigzag, line = place * abs(place), i / (width - 1) - 0.5
            decay = -6 + 6 * (i / (width - 1)) ** (1 + rising**0.3) + 0.5 + 2.5 * zigzag
            expected = [1 - (i / width) ** (power * falling) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)]
            assert layer.mix[:, i].tolist() == pytest.approx(expected, abs=1e-6)
            assert layer.decay.bias[i].item() == pytest.approx(decay, abs=1e-5)
            assert layer.rate.bias[i].item() == pytest.approx(-0.19 + 0.3 * zigzag + 0.4 * line, abs=1e-6)
            assert layer.k_k[i].item() == pytest.approx(0.71 - 0.1 * line, abs=1e-6)
            assert block.channels.mix[0, i].item() == pytest.approx(1 - (i / width) ** falling**4, abs=1e-6)
            if index:
                assert layer.keep.bias[i].item() == pytest.approx(0.73 - 0.4 * line, abs=1e-6)
        assert layer.norm.weight[0].item() == pytest.approx(((1 + index) / depth) ** 0.7)
        ranks = [part.down.shape[1] for part in (layer.decay, layer.rate, layer.gate)]
        assert ranks == [32, 32, 64]  # 28, 28 and 57, to steps of 32
        assert not layer.out.weight.any() and not block.channels.value.weight.any() and not layer.gate.down.any()
        eye = torch.eye(width)
        for matrix, gain in ((layer.receptance, 1.0), (layer.key, 0.1), (layer.value, 1.0)):
            torch.testing.assert_close(matrix.weight @ matrix.weight.T, gain**2 * eye, rtol=0, atol=1e-5)
        up = layer.rate.up
        torch.testing.assert_close(up @ up.T, 0.01 * torch.eye(32), rtol=0, atol=1e-5)


def test_inner_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of the 2 heads"):
        RWKV7(SIZE, feed=24, inner=15)
    model = RWKV7(SIZE, feed=24, inner=8)
    assert model(torch.zeros(1, 3, dtype=torch.long))[1][0][2].shape == (1, 2, 4, 4)
