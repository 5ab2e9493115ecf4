"""Performer: the layer against its equations over all pairs of tokens, its random rows, and that no later key is heard."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.attention.performer import Performer
from models.layers import rotary
from models.ops.kernel_attention.features import orthogonal_rows

WIDTH, HEADS = 24, 3


def phi(layer: Performer, x: Tensor) -> Tensor:
    projection, x = layer.projection.to(x.dtype), x / x.shape[-1] ** 0.25
    if layer.features == "relu":
        return (x @ projection.T).clamp_min(0) + 1e-3
    return torch.exp(x @ projection.T - (x * x).sum(-1, keepdim=True) / 2) / math.sqrt(len(projection))


def by_the_equations(layer: Performer, x: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in layer.qkv(x).chunk(3, -1))
    q, k, out = phi(layer, rotary(q, 0)), phi(layer, rotary(k, 0)), []
    for t in range(x.shape[1]):
        weights = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True)
        out.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
    return layer.out(torch.stack(out, 1).flatten(2))


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 17)], ids=["whole", "pieces"])
@pytest.mark.parametrize("settings", [{}, {"features": "relu", "random_features": 11}], ids=str)
def test_layer_is_its_equations_with_all_gradients(settings, cuts):
    torch.manual_seed(0)
    layer = Performer(WIDTH, HEADS, **settings).double()
    x = torch.randn(2, 23, WIDTH, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(*grads, strict=True))


def test_large_late_token_moves_no_earlier_row():
    torch.manual_seed(0)
    layer, x = Performer(WIDTH, HEADS), torch.randn(1, 70, WIDTH)
    before = layer(x)[0]
    x[:, -1] *= 40
    after = layer(x)[0]
    assert torch.equal(after[:, :-1], before[:, :-1]) and after.isfinite().all()


def test_rows_are_orthogonal_in_blocks_and_as_long_as_gaussian_vectors():
    torch.manual_seed(0)
    rows = orthogonal_rows(4000, 16)
    unit = torch.nn.functional.normalize(rows, dim=1).unflatten(0, (-1, 16))
    assert (unit @ unit.mT - torch.eye(16)).abs().max() < 1e-5
    lengths = rows.square().sum(1)  # chi squared with 16 degrees of freedom
    assert lengths.mean().item() == pytest.approx(16, rel=0.05)
    assert lengths.var().item() == pytest.approx(32, rel=0.1)
    assert rows.mean(0).abs().max() < 0.1  # no direction is preferred, as a QR decomposition's own would be
    assert orthogonal_rows(21, 16).shape == (21, 16)


def test_more_rows_come_nearer_to_softmax_attention():
    torch.manual_seed(0)
    errors, x = [], 0.5 * torch.randn(1, 40, 16)
    for count in (16, 16384):
        layer = Performer(16, 2, random_features=count)
        q, k, v = (part.unflatten(-1, (2, -1)) for part in layer.qkv(x).chunk(3, -1))
        q, k, v = (part.transpose(1, 2) for part in (rotary(q, 0), rotary(k, 0), v))
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        exact = layer.out(exact.transpose(1, 2).flatten(2))
        errors.append(((layer(x)[0] - exact).norm() / exact.norm()).item())
    assert errors[1] < errors[0] / 5 and errors[1] < 0.1


def test_size_and_weights_begin_as_the_paper_says():
    torch.manual_seed(0)
    layer = Performer(64, 4)
    assert layer.projection.shape == (int(16 * math.log(16)), 16) and "projection" in layer.state_dict()
    for weight in (*layer.qkv.weight.chunk(3), layer.out.weight):  # Glorot: uniform within sqrt(6 / (64 + 64))
        assert 0.95 * math.sqrt(6 / 128) < weight.abs().max() <= math.sqrt(6 / 128)


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="multiple of 6"):
        Performer(WIDTH, HEADS, inner=15)
    with pytest.raises(ValueError, match="choose softmax or relu"):
        Performer(WIDTH, HEADS, features="exp")
    with pytest.raises(ValueError, match="random_features of at least 1"):
        Performer(WIDTH, HEADS, random_features=0)
