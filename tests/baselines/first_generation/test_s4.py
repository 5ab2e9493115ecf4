"""S4: how it begins, its layer against the dense recurrence, and its kernel against the paper's Cauchy form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.first_generation.s4 import S4
from models.ops.convolution import convolution


def moved(states: int, systems: int = 1) -> S4:
    """A layer in float64 off its initialisation, so that P and B are complex."""
    torch.manual_seed(0)
    layer = S4(6, 2, states=states, systems=systems).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def whole(layer: S4) -> tuple[Tensor, ...]:
    """Lam, P, B and C of every channel over whole conjugate pairs, [d, N]."""
    Lam = torch.complex(-layer.log_real.exp(), -layer.imaginary).repeat(layer.copies, 1)
    P, B = (torch.view_as_complex(p).repeat(layer.copies, 1) for p in (layer.P, layer.B))
    return tuple(torch.cat([z, z.conj()], -1) for z in (Lam, P, B, torch.view_as_complex(layer.C)))


def dense(layer: S4) -> tuple[Tensor, Tensor, Tensor]:
    """Ab [d, N, N], Bb and C [d, N], by an inverse."""
    Lam, P, B, C = whole(layer)
    A = torch.diag_embed(Lam) - P[..., :, None] * P[..., None, :].conj()
    eye, dt = torch.eye(A.shape[-1], dtype=A.dtype), layer.log_dt.exp()[:, None, None]
    inverse = torch.linalg.inv(eye - dt / 2 * A)
    return inverse @ (eye + dt / 2 * A), (inverse @ (dt * B[..., None]))[..., 0], C


def loop(layer: S4, x: Tensor) -> Tensor:
    """The layer by the dense recurrence in complex128."""
    Ab, Bb, C = dense(layer)
    h, ys = torch.zeros(len(x), *Bb.shape, dtype=torch.complex128), []
    for token in x.unbind(1):
        h = torch.einsum("dnm,bdm->bdn", Ab, h) + Bb * token[..., None]
        ys.append((C * h).sum(-1).real + layer.D * token)
    first, second = layer.out(F.gelu(torch.stack(ys, 1))).chunk(2, -1)
    return first * second.sigmoid()


@pytest.mark.parametrize(("states", "systems"), [(1, 1), (5, 1), (5, 3), (32, 1)])
def test_layer_is_the_dense_recurrence(states, systems):
    layer = moved(states, systems)
    x = torch.randn(2, 77, 6, dtype=torch.float64)
    found, expected = [], []
    for y, into in ((layer(x)[0], found), (loop(layer, x), expected)):
        into += [y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]
    for got, right in zip(found, expected, strict=True):
        assert (got - right).norm() <= 1e-9 * right.norm()


def test_steps_of_one_token_are_the_dense_recurrence():
    layer = moved(8)
    x, state, ys = torch.randn(2, 40, 6, dtype=torch.float64), None, []
    for token in x.split(1, 1):
        y, state = layer(token, state)
        ys.append(y)
    expected = loop(layer, x)
    assert (torch.cat(ys, 1) - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("time", [40, 41])
def test_kernel_is_the_papers_cauchy_form(time):
    """K^(om) = 2 / (1 + om) (r_CB - r_CP r_PB / (1 + r_PP)) at the roots of unity, with C (1 - Ab^T) in the place of C."""
    layer = moved(8)
    Lam, P, B, C = whole(layer)
    Ab, _, _ = dense(layer)
    dt, eye = layer.log_dt.exp()[:, None], torch.eye(16, dtype=Ab.dtype)
    C = (C[:, None] @ (eye - torch.linalg.matrix_power(Ab, time)))[:, 0]
    unity = torch.exp(-2j * math.pi * torch.arange(time // 2 + 1, dtype=torch.float64) / time)
    z = 2 * (1 - unity) / (1 + unity)

    def cauchy(left: Tensor, right: Tensor) -> Tensor:
        return ((left * right * dt)[..., None] / (z - (dt * Lam)[..., None])).sum(1)

    transfer = cauchy(C, B) - cauchy(C, P) * cauchy(P.conj(), B) / (1 + cauchy(P.conj(), P))
    transfer = 2 / (1 + unity) * transfer
    if time % 2 == 0:  # the limit at -1
        transfer[:, -1] = (dt * C * B).sum(1) / 2
    kernel = torch.fft.irfft(transfer, n=time)
    impulse = F.one_hot(torch.tensor([0]), time).double()[..., None].expand(-1, -1, 6)
    found, _ = convolution(impulse, *layer.system())
    assert (found[0].T - kernel).norm() <= 1e-9 * kernel.norm()


def test_initialisation_is_hippo():
    torch.manual_seed(0)
    layer = S4(512, 2)
    n = torch.arange(64, dtype=torch.float64)
    assert torch.allclose(layer.log_real.exp(), torch.tensor(0.5))
    assert 2 * layer.P.square().sum().item() == pytest.approx((n + 0.5).sum().item(), rel=1e-5)  # V is unitary
    assert torch.allclose(layer.B, 2**0.5 * layer.P)
    skew = torch.outer((n + 0.5).sqrt(), (n + 0.5).sqrt()).triu(1)
    expected = torch.linalg.eigvals(skew - skew.T).imag.sort().values[32:].flip(0)
    assert torch.allclose(layer.imaginary[0].double(), expected, rtol=1e-5)
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(1, rel=0.05)
    steps = layer.log_dt.exp()
    assert 1e-3 <= steps.min() < 1.1e-3 and 0.09 < steps.max() <= 0.1


@pytest.mark.parametrize("setting", [{"states": 0}, {"systems": 4}, {"systems": 0}])
def test_systems_that_do_not_share_the_channels_are_refused(setting):
    with pytest.raises(ValueError, match="S4 needs states >= 1, and systems that share its 6 channels equally"):
        S4(6, 2, **setting)
