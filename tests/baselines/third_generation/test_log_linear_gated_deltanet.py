"""Log-linear Gated DeltaNet: its layer against one state a token, what equal weights make of it, and how it begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.third_generation.gated_deltanet import GatedDeltaNet
from baselines.third_generation.log_linear_gated_deltanet import LogLinearGatedDeltaNet


def by_token(layer: LogLinearGatedDeltaNet, x: Tensor) -> Tensor:
    """Every token's write is a state of its own, which all later tokens forget and compare with, and which is read by its age."""
    q, k, v = F.silu(layer.convolution(layer.qkv(x))[0]).split(layer.widths, -1)
    q, k, v = (part.unflatten(-1, (layer.heads, -1)) for part in (q, k, v))
    q, k = (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for part in (q, k))
    weights = F.softplus(layer.L * layer.weigh(x).unflatten(-1, layer.L.shape))
    a = (-layer.A_log.exp() * F.softplus(layer.step(x) + layer.step_bias)).exp()
    b, written, ys = layer.rate(x).sigmoid(), [], []
    for t in range(x.shape[1]):
        eye = torch.eye(k.shape[-1], dtype=x.dtype)
        turn = eye - b[:, t, :, None, None] * k[:, t, :, :, None] * k[:, t, :, None, :]
        written = [turn @ (a[:, t, :, None, None] * state) for state in written]
        written.append(b[:, t, :, None, None] * k[:, t, :, :, None] * v[:, t, :, None, :])
        level = [(t ^ s).bit_length() for s in range(t + 1)]
        seen = sum(weights[:, t, :, j, None, None] * state for j, state in zip(level, written, strict=True))
        ys.append(torch.einsum("bhkv,bhk->bhv", seen, q[:, t]) * k.shape[-1] ** -0.5)
    return layer.out(layer.norm(torch.stack(ys, 1)).flatten(2) * F.silu(layer.gate(x)))


def test_layer_is_its_definition():
    torch.manual_seed(0)
    layer = LogLinearGatedDeltaNet(8, 2, levels=6).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(2, 21, 8, dtype=torch.float64)
    expected = by_token(layer, x)
    found, (_, buckets, count) = layer(x)
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    assert buckets.shape == (2, 2, 5, 3, 6) and count == 21
    pieces, state = [], None
    for piece in x.split([1, 9, 11], 1):
        y, state = layer(piece, state)
        pieces.append(y)
    assert (torch.cat(pieces, 1) - expected).norm() <= 1e-10 * expected.norm()


def test_equal_weights_make_it_gated_deltanet():
    torch.manual_seed(0)
    layer, plain = LogLinearGatedDeltaNet(8, 2, levels=9), GatedDeltaNet(8, 2)
    own = {name: part for name, part in layer.state_dict().items() if name not in ("L", "weigh.weight")}
    plain.load_state_dict(own)
    layer.weigh.weight.data.zero_()  # every level weighs softplus(0); the norm takes that back
    layer.norm.eps, plain.norm.eps = 0.0, 0.0
    x = torch.randn(2, 150, 8)
    torch.testing.assert_close(layer(x)[0], plain(x)[0], rtol=1e-4, atol=1e-5)


def test_initialisation_is_gated_deltanets_and_levels_weigh_alike():
    torch.manual_seed(0)
    layer = LogLinearGatedDeltaNet(64, 8)
    assert torch.equal(layer.L, torch.ones(8, 15)) and not layer.rate.bias.any()
    assert (1e-3 <= layer.A_log.exp()).all() and (layer.A_log.exp() <= 16.001).all()
    steps = F.softplus(layer.step_bias)
    assert (steps >= 1e-4).all() and (steps <= 0.1 + 1e-6).all()


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="needs at least 2 levels, not 1"):
        LogLinearGatedDeltaNet(8, 2, levels=1)
