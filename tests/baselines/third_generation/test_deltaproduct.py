"""DeltaProduct with and without gate: the layers against a plain loop from their equations, and how they begin."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.third_generation.deltaproduct import DeltaProduct, GatedDeltaProduct
from baselines.third_generation.gated_deltanet import GatedDeltaNet

WIDTH, HEADS, INNER = 16, 2, 8
KEY, VALUE = INNER // HEADS, 2 * INNER // HEADS


def mixer(cls, **settings) -> nn.Module:
    torch.manual_seed(0)
    layer = cls(WIDTH, HEADS, inner=INNER, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def by_the_equations(layer: nn.Module, x: Tensor, steps: int, highest: float) -> Tensor:
    """One row x [t, width]: the k and v of a token's steps lie one behind the other in the channels."""
    time, channels = len(x), layer.qkv.out_features
    inputs = torch.cat([x.new_zeros(3, channels), x @ layer.qkv.weight.T])
    weight = layer.convolution.weight[:, 0]
    qkv = F.silu(torch.stack([sum(weight[:, j] * inputs[t + j] for j in range(4)) for t in range(time)]))
    q = qkv[:, :INNER].view(time, HEADS, KEY)
    k = qkv[:, INNER : (1 + steps) * INNER].view(time, steps, HEADS, KEY)
    v = qkv[:, (1 + steps) * INNER :].view(time, steps, HEADS, VALUE)
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    rate = highest * torch.sigmoid(x @ layer.rate.weight.T).view(time, steps, HEADS)
    keep = x.new_ones(time, HEADS)
    if isinstance(layer, GatedDeltaProduct):
        keep = torch.exp(-layer.A_log.exp() * F.softplus(x @ layer.step.weight.T + layer.step_bias))
    ys = []
    for head in range(HEADS):
        state, rows = x.new_zeros(KEY, VALUE), []
        for t in range(time):
            state = keep[t, head] * state
            for j in range(steps):
                error = v[t, j, head] - k[t, j, head] @ state
                state = state + rate[t, j, head] * torch.outer(k[t, j, head], error)
            y = q[t, head] @ state / math.sqrt(KEY)
            rows.append(y / (y.square().mean() + 1e-5).sqrt() * layer.norm.weight)
        ys.append(torch.stack(rows))
    return (torch.cat(ys, 1) * F.silu(x @ layer.gate.weight.T)) @ layer.out.weight.T


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("cls", [DeltaProduct, GatedDeltaProduct])
def test_layer_is_its_equations(cls, steps):
    layer = mixer(cls, steps=steps)
    x = torch.randn(45, WIDTH, dtype=torch.float64)
    right = by_the_equations(layer, x, steps, 2.0)
    assert (layer(x[None])[0][0] - right).norm() <= 1e-12 * right.norm()


def test_one_step_with_a_gate_is_gated_deltanet():
    product, one = mixer(GatedDeltaProduct, steps=1, negative_eigenvalues=False), mixer(GatedDeltaNet)
    shared = product.state_dict()
    one.load_state_dict(shared | {"rate.bias": torch.zeros(HEADS)})
    x = torch.randn(2, 41, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(product(x)[0], one(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_steps_leave_the_parameters_what_they_are_in_gated_deltanet(steps):
    wide, heads = 768, 4
    count, right = (
        sum(p.numel() for p in layer.parameters())
        for layer in (GatedDeltaProduct(wide, heads, steps=steps), GatedDeltaNet(wide, heads))
    )
    assert count == pytest.approx(right, rel=0.02)


def test_gates_begin_as_those_of_gated_deltanet():
    torch.manual_seed(0)
    layer = GatedDeltaProduct(128, 64, inner=64)
    step = F.softplus(layer.step_bias)
    assert 0.99e-3 <= step.min() and step.max() <= 0.101
    speed = layer.A_log.exp()
    assert 1e-3 <= speed.min() and speed.max() <= 16
    assert speed.mean().item() == pytest.approx(8, abs=2)


def test_two_reflections_of_a_token_are_a_rotation():
    """Two steps with rates of 2 and nothing to write turn what is known under two keys by twice the angle between them."""
    layer = mixer(DeltaProduct)
    with torch.no_grad():
        layer.rate.weight.fill_(100.0)  # a sigmoid of 1 for positive x
        layer.qkv.weight[3 * INNER :] = 0  # nothing is written
    x = torch.ones(1, 4, WIDTH, dtype=torch.float64)
    _, (tail, matrix) = layer(x, None)
    matrix = torch.randn_like(matrix)
    _, (_, after) = layer(x[:, :1], (tail, matrix))
    transition = after[0] @ torch.linalg.pinv(matrix[0])  # [h, k, k]
    eye = torch.eye(KEY, dtype=torch.float64).expand_as(transition)
    torch.testing.assert_close(transition @ transition.mT, eye, rtol=0, atol=1e-4)  # unit keys to the norm's epsilon
    torch.testing.assert_close(torch.linalg.det(transition), eye[:, 0, 0], rtol=0, atol=1e-4)
    assert (transition - eye).norm() > 0.1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"inner": 15}, "must be a multiple of the 2 heads"), ({"steps": 0}, "needs at least one step a token")],
)
@pytest.mark.parametrize("cls", [DeltaProduct, GatedDeltaProduct])
def test_impossible_settings_are_refused(cls, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        cls(WIDTH, HEADS, **settings)
