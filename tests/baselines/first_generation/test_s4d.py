"""S4D: how it begins, and its layer against a plain loop over the whole conjugate system, for both rules of discretisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.first_generation.s4d import S4D


def loop(layer: S4D, x: Tensor, rule: str) -> Tensor:
    """The equations token by token, every number of a conjugate pair by itself, in complex128."""
    A = torch.complex(-layer.log_real.exp(), layer.imaginary)
    A, C = (torch.cat([z, z.conj()], -1) for z in (A, torch.view_as_complex(layer.C)))
    step = layer.log_dt.exp()[:, None] * A
    a = step.exp() if rule == "zoh" else (1 + step / 2) / (1 - step / 2)
    b = (a - 1) / A if rule == "zoh" else step / A / (1 - step / 2)
    h, ys = torch.zeros(len(x), *A.shape, dtype=torch.complex128), []
    for token in x.unbind(1):
        h = a * h + b * token[..., None]
        ys.append((C * h).sum(-1).real + layer.D * token)
    first, second = layer.out(F.gelu(torch.stack(ys, 1))).chunk(2, -1)
    return first * second.sigmoid()


@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_layer_is_its_equations(init, rule):
    torch.manual_seed(0)
    layer = S4D(6, 2, states=5, init=init, discretisation=rule).double()
    x = torch.randn(2, 77, 6, dtype=torch.float64)
    found, expected = [], []
    for y, into in ((layer(x)[0], found), (loop(layer, x, rule), expected)):
        into += [y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]
    for got, right in zip(found, expected, strict=True):
        assert (got - right).norm() <= 1e-9 * right.norm()


def test_initialisation_is_the_authors():
    torch.manual_seed(0)
    layer = S4D(512, 2)
    assert torch.allclose(layer.log_real.exp(), torch.tensor(0.5))
    assert torch.allclose(layer.imaginary[7], math.pi * torch.arange(32.0))
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(1, rel=0.05)
    steps = layer.log_dt.exp()
    assert 1e-3 <= steps.min() < 1.1e-3 and 0.09 < steps.max() <= 0.1
    assert layer.log_dt.mean().item() == pytest.approx(math.log(1e-2), abs=0.2)
    assert layer.D.std().item() == pytest.approx(1, rel=0.1)
    assert layer.out.weight.abs().max().item() == pytest.approx(512**-0.5, rel=0.01)


def test_other_channels_than_the_models_are_made_by_a_product():
    layer = S4D(6, 2, inner=10)
    y, (h,) = layer(torch.randn(2, 9, 6))
    assert y.shape == (2, 9, 6) and h.shape == (2, 10, 32, 2)


@pytest.mark.parametrize("setting", [{"init": "fourier"}, {"discretisation": "euler"}, {"states": 0}])
def test_unknown_settings_are_refused(setting):
    with pytest.raises(ValueError, match="(Choose init lin, inv, legs|at least 1 state)"):
        S4D(6, 2, **setting)
