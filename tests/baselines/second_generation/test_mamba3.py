"""Mamba-3: the layer against its equations, token by token, and the authors' initialisation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.second_generation.mamba3 import Mamba3

WIDTH, HEADS, STATES = 6, 2, 10


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def layer(activation: str) -> Mamba3:
    torch.manual_seed(0)
    made = Mamba3(WIDTH, HEADS, states=STATES, activation=activation).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def loop(mixer: Mamba3, x: Tensor) -> Tensor:
    """The layer's y [b, t, width], its state a complex rotation that is applied to every key and query."""
    inner, ys = mixer.out.in_features, []
    S = k = v = 0.0
    theta = torch.zeros(len(x), HEADS, STATES // 4, dtype=x.dtype)
    for t in range(x.shape[1]):
        parts = (x[:, t] @ mixer.project.weight.T).split(
            [inner, inner, STATES, STATES, *[HEADS] * 3, STATES // 4], dim=-1
        )
        z, value, B, C, step, A, trapezoid, speed = parts
        delta = F.softplus(step + mixer.step_bias)
        if mixer.activation == "softplus":
            A = -F.softplus(A)
        else:
            A = -torch.where(A >= 0, 1 + A, 1 / (1 - A))
        alpha, lam = torch.exp(A.clamp(max=-1e-4) * delta), torch.sigmoid(trapezoid)
        theta = theta + math.pi * torch.tanh(speed)[:, None] * delta[..., None]
        turn = torch.polar(torch.ones_like(theta), theta)
        keys = []
        for one, norm, bias in ((B, mixer.norm_B, mixer.bias_B), (C, mixer.norm_C, mixer.bias_C)):
            one = one / (one.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
            one = one[:, None] + bias
            pairs = torch.view_as_complex(one[..., : 2 * theta.shape[-1]].unflatten(-1, (-1, 2)).contiguous()) * turn
            keys.append(torch.cat([torch.view_as_real(pairs).flatten(-2), one[..., 2 * theta.shape[-1] :]], -1))
        (new_k, q), new_v = keys, value.unflatten(-1, (HEADS, -1))
        before = 0.0 if t == 0 else ((1 - lam) * delta * alpha)[..., None, None] * k[..., :, None] * v[..., None, :]
        S = (
            alpha[..., None, None] * S
            + before
            + (lam * delta)[..., None, None] * new_k[..., :, None] * new_v[..., None, :]
        )
        k, v = new_k, new_v
        y = (S * q[..., None]).sum(2) + mixer.D[:, None] * v
        ys.append((y.flatten(1) * z * torch.sigmoid(z)) @ mixer.out.weight.T)
    return torch.stack(ys, 1)


@pytest.mark.parametrize(("activation", "pieces"), [("softplus", [23]), ("rational", [1, 17, 2, 3])])
def test_layer_is_its_equations(activation, pieces):
    mixer = layer(activation)
    x = 2 * torch.randn(2, 23, WIDTH, dtype=torch.float64)
    x.requires_grad_()
    ys, state = [], None
    for piece in x.split(pieces, 1):
        y, state = mixer(piece, state)
        ys.append(y)
    y, right = torch.cat(ys, 1), loop(mixer, x)
    assert relative(y, right) < 1e-12
    leaves = {"x": x, **dict(mixer.named_parameters())}
    way = torch.randn_like(y)
    answers = [torch.autograd.grad((one * way).sum(), list(leaves.values())) for one in (y, right)]
    for name, got, expected in zip(leaves, *answers, strict=True):
        assert relative(got, expected) < 1e-9, name


def test_angles_of_a_long_text_keep_their_digits_in_float32():
    mixer = layer("softplus")
    with torch.no_grad():
        mixer.project.weight[-2:] *= 100  # each token turns by nearly the largest angle
        mixer.step_bias += 2
    x = torch.randn(1, 1500, WIDTH, dtype=torch.float64)
    exact, _ = mixer(x)
    once, _ = mixer.float()(x.float())
    state, pieces = None, []
    for piece in x.float().split(100, 1):
        y, state = mixer(piece, state)
        pieces.append(y)
    assert relative(once.double(), exact) < 1e-5
    assert relative(torch.cat(pieces, 1).double(), exact) < 1e-5


def test_initial_values_are_the_authors():
    mixer = Mamba3(64, 4)
    assert mixer.project.out_features == 4 * 64 * 2 // 2 + 2 * 128 + 3 * 4 + 32
    step = F.softplus(mixer.step_bias)
    assert (step >= 0.9e-3).all() and (step <= 0.11).all()
    assert all((one == 1).all() for one in (mixer.D, mixer.bias_B, mixer.bias_C, mixer.norm_B.weight))
    assert mixer.norm_C.eps == 1e-5


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="inner .10. to be a multiple of heads .4."):
        Mamba3(8, 4, inner=10)
    with pytest.raises(ValueError, match="choose softplus or rational"):
        Mamba3(8, 4, activation="relu")
