"""Comba: the layer against a plain loop from its equations, the released comparison, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.third_generation.comba import Comba

WIDTH, HEADS, INNER = 16, 2, 8
KEY, VALUE = INNER // HEADS, 2 * INNER // HEADS


def mixer(**settings) -> Comba:
    torch.manual_seed(0)
    layer = Comba(WIDTH, HEADS, inner=INNER, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def by_the_equations(layer: Comba, x: Tensor, normed: bool) -> Tensor:
    """One row x [t, width], with the paper's transition a - r k p^T, not split into verbs."""
    time = len(x)
    inputs = torch.cat([x.new_zeros(3, 4 * INNER), x @ layer.qkv.weight.T])
    weight = layer.convolution.weight[:, 0]
    qkv = F.silu(torch.stack([sum(weight[:, j] * inputs[t + j] for j in range(4)) for t in range(time)]))
    q, k, v = (part.view(time, HEADS, -1) for part in qkv.split([INNER, INNER, 2 * INNER], dim=-1))
    rate, keep = torch.sigmoid(x @ layer.rate.weight.T), F.softplus(x @ layer.step.weight.T + layer.step_bias)
    keep = torch.exp(-layer.A_log.exp() * keep)
    weak, ys = torch.sigmoid(layer.decay), []
    for head in range(HEADS):
        state, rows = x.new_zeros(KEY, VALUE), []
        for t in range(time):
            key, asked = unit(k[t, head]), unit(q[t, head] - layer.correction[head] * weak[head] * k[t, head])
            compared = key if normed else weak[head] * key
            eye = torch.eye(KEY, dtype=torch.float64)
            transition = keep[t, head] * eye - rate[t, head] * torch.outer(key, compared)
            state = transition @ state + rate[t, head] * torch.outer(key, v[t, head])
            y = asked @ state / math.sqrt(KEY)
            rows.append(y / (y.square().mean() + 1e-5).sqrt() * layer.norm.weight)
        ys.append(torch.stack(rows))
    return (torch.cat(ys, 1) * torch.sigmoid(x @ layer.gate.weight.T)) @ layer.out.weight.T


@pytest.mark.parametrize("normed", [False, True])
def test_layer_is_its_equations(normed):
    layer = mixer(normed_comparison=normed)
    x = torch.randn(45, WIDTH, dtype=torch.float64)
    right = by_the_equations(layer, x, normed)
    assert (layer(x[None])[0][0] - right).norm() <= 1e-12 * right.norm()


def test_layer_begins_as_released():
    torch.manual_seed(0)
    layer = Comba(128, 64, inner=64)
    assert torch.equal(layer.decay, torch.ones(64)) and torch.equal(layer.correction, torch.ones(64))
    assert torch.equal(Comba(WIDTH, HEADS, correction=0.02).correction, torch.full((HEADS,), 0.02))
    step = F.softplus(layer.step_bias)
    assert 0.99e-3 <= step.min() and step.max() <= 0.101
    assert layer.A_log.exp().max() <= 16 and layer.A_log.exp().mean().item() == pytest.approx(8, abs=2)


def test_widths_are_those_of_gated_deltanet():
    layer = Comba(64, 4)
    assert layer.widths == [48, 48, 96]


def test_inner_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of the 2 heads"):
        Comba(WIDTH, HEADS, inner=15)
