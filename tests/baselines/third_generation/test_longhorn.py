"""Longhorn: its equations token by token, the regression that they solve, and rates at their ends."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu

from baselines.third_generation.longhorn import Longhorn


@torch.no_grad()
def test_layer_is_its_equations_token_by_token():
    torch.manual_seed(0)
    layer, u = Longhorn(8, 2, states=5).double(), torch.randn(2, 21, 8, dtype=torch.float64)
    whole, (_, last) = layer(u)
    x, z = layer.project(u).split(16, -1)
    seen = torch.cat([torch.zeros(2, 3, 16), x], 1)
    S = torch.zeros(2, 16, 5, dtype=torch.float64)
    for t in range(21):
        row = silu((seen[:, t : t + 4] * layer.convolution.weight[:, 0].T).sum(1) + layer.convolution.bias)
        rank, k, q = layer.select(row).split([1, 5, 5], -1)
        b = torch.sigmoid(layer.rate(rank))
        D = b / (1 + b * (k * k).sum(-1, keepdim=True))
        S = (1 - D[..., None] * k[:, None] ** 2) * S + (D * row)[..., None] * k[:, None]
        y = (S * q[:, None]).sum(-1) + layer.skip * row
        right = layer.out(y * silu(z[:, t]))
        assert (whole[:, t] - right).norm() < 1e-13 * right.norm()
    assert (last.mT - S).norm() < 1e-13 * S.norm()


def test_step_is_the_minimum_of_the_regression_where_one_number_is_stored():
    """min |s - s_0|^2 + b (s k - x)^2: with N = 1 the diagonal is the whole matrix."""
    s, k, x, b = 0.7, 1.3, -0.4, 0.8
    D = b / (1 + b * k * k)
    found = (1 - D * k * k) * s + D * x * k
    assert 2 * (found - s) + 2 * b * (found * k - x) * k == pytest.approx(0)


@pytest.mark.parametrize("bias", [-1e3, 1e3])
@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_rates_and_keys_at_their_ends_give_finite_numbers(bias, size):
    torch.manual_seed(0)
    layer = Longhorn(8, 2)
    with torch.no_grad():
        layer.rate.bias.fill_(bias), layer.select.weight.mul_(size)
    y, (_, matrix) = layer(torch.randn(2, 300, 8))
    y.square().mean().backward()
    assert y.isfinite().all() and matrix.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_weights_are_torchs_own_and_the_skip_is_one():
    layer = Longhorn(64, 4)
    assert layer.rate.weight.shape == (128, 4) and layer.select.weight.shape == (4 + 32, 128)
    assert layer.rate.bias.abs().max() <= 4**-0.5 and (layer.skip == 1).all()
