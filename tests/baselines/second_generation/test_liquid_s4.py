"""Liquid-S4: how it begins, its layer against a plain loop over the whole conjugate system, of a degree and exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.second_generation.liquid_s4 import LiquidS4


def loop(layer: LiquidS4, x: Tensor) -> Tensor:
    """The equations token by token, every number of a conjugate pair by itself, in complex128."""
    A = torch.complex(-layer.log_real.exp(), layer.imaginary)
    A, C = (torch.cat([z, z.conj()], -1) for z in (A, torch.view_as_complex(layer.C)))
    a = (layer.log_dt.exp()[:, None] * A).exp()
    b = (a - 1) / A
    h, ys = [torch.zeros(len(x), *A.shape, dtype=torch.complex128) for _ in range(layer.degree)], []
    for token in x.unbind(1):
        given = b * token[..., None]
        if layer.exact:
            h = [(a + given) * h[0] + given]
        else:
            h = [a * one + given * (1 if p == 0 else h[p - 1]) for p, one in enumerate(h)]
        ys.append((C * sum(h)).sum(-1).real + layer.D * token)
    first, second = layer.out(F.gelu(torch.stack(ys, 1))).chunk(2, -1)
    return first * second.sigmoid()


@pytest.mark.parametrize("settings", [{"degree": 1}, {"degree": 2}, {"degree": 4}, {"exact": True}], ids=str)
def test_layer_is_its_equations(settings):
    torch.manual_seed(0)
    layer = LiquidS4(6, 2, states=5, **settings).double()
    x = torch.randn(2, 77, 6, dtype=torch.float64)
    found, expected = [], []
    for y, into in ((layer(x)[0], found), (loop(layer, x), expected)):
        into += [y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]
    for got, right in zip(found, expected, strict=True):
        assert (got - right).norm() <= 1e-9 * right.norm()


@pytest.mark.parametrize("exact", [False, True])
def test_state_carries_a_text_over_cuts(exact):
    torch.manual_seed(0)
    layer = LiquidS4(6, 2, states=5, exact=exact).double()
    x = torch.randn(2, 77, 6, dtype=torch.float64)
    whole, state, pieces = layer(x)[0], None, []
    for piece in x.split([1, 40, 36], 1):
        y, state = layer(piece, state)
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= 1e-10 * whole.norm()


def test_initialisation_is_that_of_s4d():
    torch.manual_seed(0)
    layer = LiquidS4(512, 2)
    assert torch.allclose(layer.log_real.exp(), torch.tensor(0.5))
    assert torch.allclose(layer.imaginary[7], math.pi * torch.arange(32.0))
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(1, rel=0.05)
    assert layer.log_dt.mean().item() == pytest.approx(math.log(1e-2), abs=0.2)
    assert layer.D.std().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    "setting", [{"init": "fourier"}, {"discretisation": "euler"}, {"states": 0}, {"degree": 0}, {"degree": 5}]
)
def test_unknown_settings_are_refused(setting):
    with pytest.raises(ValueError, match="(Choose init lin, inv, legs|at least 1 state|Liquid-S4 needs a degree)"):
        LiquidS4(6, 2, **setting)
