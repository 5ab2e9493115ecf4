"""S5: against the dense system that it diagonalises, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.first_generation.s5 import S5, hippo


def dense(size: int) -> torch.Tensor:
    """The normal part of HiPPO-LegS, from the matrix itself plus the product that makes it normal."""
    n = torch.arange(size, dtype=torch.float64)
    legs = -torch.outer((2 * n + 1).sqrt(), (2 * n + 1).sqrt()).tril(-1) - torch.diag(n + 1)
    return legs + torch.outer((n + 0.5).sqrt(), (n + 0.5).sqrt())


def test_half_of_the_eigenvalues_and_their_conjugates_are_hippos_normal_part():
    eigenvalues, vectors = hippo(8)
    assert (eigenvalues.imag < 0).all() and torch.equal(eigenvalues.real, torch.full((4,), -0.5).double())
    half = vectors @ torch.diag(eigenvalues) @ vectors.mH
    assert (2 * half.real - dense(8)).abs().max() < 1e-13


@torch.no_grad()
def test_layer_is_the_dense_system_token_by_token():
    """Real B_0 and C_0, one step for all: the pairs then are the dense real system under zero-order hold."""
    torch.manual_seed(0)
    layer, size = S5(4, 1, inner=6).double(), 6
    A, step = dense(size), 0.05
    B, C = torch.randn(size, 4, dtype=torch.float64), torch.randn(4, size, dtype=torch.float64)
    _, vectors = hippo(size)
    eigenvalues = hippo(size)[0]
    layer.real.copy_(eigenvalues.real), layer.imaginary.copy_(eigenvalues.imag)
    layer.B.copy_(torch.view_as_real(vectors.mH @ B.to(vectors.dtype)).transpose(1, 2))
    layer.C.copy_(torch.view_as_real(C.to(vectors.dtype) @ vectors))
    layer.log_step.fill_(math.log(step))
    turn = torch.linalg.matrix_exp(A * step)
    written = torch.linalg.solve(A, (turn - torch.eye(size)) @ B)
    x, h = torch.randn(2, 21, 4, dtype=torch.float64), torch.zeros(2, size, dtype=torch.float64)
    for t in range(21):
        h = h @ turn.T + x[:, t] @ written.T
        u = torch.nn.functional.gelu(h @ C.T + layer.D * x[:, t], approximate="tanh")
        right = u * torch.sigmoid(u @ layer.gate.weight.T + layer.gate.bias)
        assert (layer(x[:, : t + 1])[0][:, -1] - right).norm() < 1e-12 * right.norm()


def test_weights_begin_as_the_authors_code_draws_them():
    torch.manual_seed(0)
    layer = S5(64, 4, inner=128)
    assert layer.real.tolist() == [-0.5] * 64 and torch.equal(layer.imaginary[:16], layer.imaginary[48:])
    # V has unit columns, so that a complex number keeps the variance of what it is made of: 1 / P, and twice that for C.
    assert layer.B.square().sum(1).mean().item() == pytest.approx(1 / 128, rel=0.05)
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(2 / 128, rel=0.05)
    step = layer.log_step.exp()
    assert 1e-3 <= step.min() < 2e-3 and 0.05 < step.max() <= 0.1
    assert layer.D.std().item() == pytest.approx(1, rel=0.3) and not layer.gate.bias.any()


def test_real_parts_that_would_grow_are_held_below_zero():
    layer = S5(8, 2)
    with torch.no_grad():
        layer.real.fill_(3.0)
    assert (layer.discretised()[0].abs() < 1).all()


def test_inner_that_makes_no_whole_blocks_of_pairs_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of twice its 4 heads"):
        S5(16, 4, inner=20)
