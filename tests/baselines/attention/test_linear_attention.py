"""Linear attention: the layer against its equations over all pairs of tokens, its settings, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.attention.linear_attention import LinearAttention, sinusoids


def phi(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, x.exp())


def by_the_equations(layer: LinearAttention, x: Tensor) -> Tensor:
    """Every pair of tokens on its own: sum_{s <= t} (phi(q_t) . phi(k_s)) v_s / (sum_{s <= t} phi(q_t) . phi(k_s) + 1e-6)."""
    if layer.positions == "sinusoidal":
        width = x.shape[-1]
        turns = [[t * 10000.0 ** (-2 * (i // 2) / width) for i in range(width)] for t in range(x.shape[1])]
        waves = [[(math.sin, math.cos)[i % 2](angle) for i, angle in enumerate(row)] for row in turns]
        x = x + torch.tensor(waves, dtype=x.dtype)
    rows = layer.qkv(x)
    if layer.convolution is not None:
        weight = layer.convolution.weight
        rows = torch.stack(
            [
                sum(rows[:, t - j] * weight[:, 0, -1 - j] for j in range(weight.shape[-1]) if t >= j)
                for t in range(rows.shape[1])
            ],
            1,
        )
    q, k, v = (part.unflatten(-1, (layer.heads, -1)) for part in rows.chunk(3, -1))
    q, k = phi(layer.sharpness * q), phi(layer.sharpness * k)
    out = []
    for t in range(x.shape[1]):
        weights = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True)
        out.append((weights * v[:, : t + 1]).sum(1) / (weights.sum(1) + 1e-6))
    return layer.out(torch.stack(out, 1).flatten(2))


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 17)], ids=["whole", "pieces"])
@pytest.mark.parametrize("settings", [{}, {"positions": "none", "conv": 3, "sharpness": 4.0}, {"inner": 18}], ids=str)
def test_layer_is_its_equations_with_all_gradients(settings, cuts):
    torch.manual_seed(0)
    layer = LinearAttention(12, 3, **settings).double()
    x = torch.randn(2, 23, 12, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(*grads, strict=True))


def test_positions_go_on_where_the_piece_begins():
    whole, later = sinusoids(0, torch.zeros(1, 40, 7)), sinusoids(30, torch.zeros(1, 10, 7))
    assert torch.equal(whole[30:], later)


def test_weights_begin_as_torch_draws_a_linear_map():
    """The authors' code leaves them so: uniform within width^-1/2, biases too."""
    torch.manual_seed(0)
    layer = LinearAttention(64, 4)
    for weight in (layer.qkv.weight, layer.qkv.bias, layer.out.weight, layer.out.bias):
        assert 0.9 / 8 < weight.abs().max() <= 1 / 8


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="multiple of heads"):
        LinearAttention(12, 3, inner=10)
    with pytest.raises(ValueError, match="choose sinusoidal or none"):
        LinearAttention(12, 3, positions="rotary")
