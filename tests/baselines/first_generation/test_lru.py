"""LRU: its equations token by token, and where its ring of eigenvalues begins."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.first_generation.lru import LRU


def test_layer_is_its_equations_token_by_token():
    torch.manual_seed(0)
    layer, x = LRU(8, 2, inner=6).double(), torch.randn(2, 21, 8, dtype=torch.float64)
    turn = torch.exp(torch.complex(-layer.nu.exp(), layer.theta.exp()))
    B, C = torch.complex(*layer.B.unbind(1)), torch.view_as_complex(layer.C.detach())
    h = torch.zeros(2, 6, dtype=torch.complex128)
    for t in range(21):
        h = turn * h + layer.gamma_log.exp() * ((x[:, t] + 0j) @ B.T)
        y = (h @ C.T).real + layer.D * x[:, t]
        u = torch.nn.functional.gelu(y, approximate="tanh")
        value, gate = (u @ layer.out.weight.T + layer.out.bias).split(8, -1)
        right = value * torch.sigmoid(gate)
        assert (layer(x[:, : t + 1])[0][:, -1] - right).norm() < 1e-13 * right.norm()


def test_eigenvalues_begin_uniform_over_a_ring_and_gamma_as_its_normalisation():
    torch.manual_seed(0)
    layer = LRU(64, 2, inner=4096, least_radius=0.5, largest_radius=0.9, largest_angle=math.pi / 10).double()
    squared, angle = torch.exp(-2 * layer.nu.exp()), layer.theta.exp()
    assert 0.25 <= squared.min() and squared.max() <= 0.81 + 1e-6
    assert squared.mean().item() == pytest.approx(0.53, rel=0.02)
    assert angle.max() <= math.pi / 10 and angle.mean().item() == pytest.approx(math.pi / 20, rel=0.03)
    assert (layer.gamma_log.exp() - (1 - squared).sqrt()).abs().max() < 1e-5
    assert layer.B.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert layer.C.std().item() == pytest.approx(4096**-0.5, rel=0.02)
    assert layer.out.weight.std().item() == pytest.approx(1 / 8, rel=0.05) and not layer.out.bias.any()


def test_whole_ring_begins_with_finite_parameters_whatever_is_drawn(monkeypatch):
    for value in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda *shape, value=value: torch.full(shape, value))
        assert all(p.isfinite().all() for p in LRU(8, 2).parameters())


def test_impossible_rings_are_refused():
    for settings in ({"least_radius": 0.9, "largest_radius": 0.5}, {"largest_radius": 1.5}, {"largest_angle": 7.0}):
        with pytest.raises(ValueError, match="LRU needs 0 <= least_radius"):
            LRU(8, 2, **settings)
