"""Kimi Delta Attention and Gated DeltaNet-2: the layers against plain loops from their equations, and how they begin."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.third_generation.kda import GatedDeltaNet2, KimiDeltaAttention

WIDTH, HEADS = 16, 2
HEAD = WIDTH // HEADS


def mixer(cls, **settings) -> nn.Module:
    torch.manual_seed(0)
    layer = cls(WIDTH, HEADS, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def by_the_equations(layer: nn.Module, x: Tensor, erase: Tensor, write: Tensor) -> Tensor:
    """One row x [t, width]; gates of what is erased, on keys, and written, on values, [t, h, ..]."""
    time = len(x)
    inputs = torch.cat([x.new_zeros(3, 3 * WIDTH), x @ layer.qkv.weight.T])
    weight = layer.convolution.weight[:, 0]
    qkv = torch.stack([sum(weight[:, j] * inputs[t + j] for j in range(4)) for t in range(time)])
    q, k, v = (part.view(time, HEADS, HEAD) for part in F.silu(qkv).split(WIDTH, dim=-1))
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    step = F.softplus(x @ layer.step[0].weight.T @ layer.step[1].weight.T + layer.step_bias).view(time, HEADS, HEAD)
    keep = torch.exp(-layer.A_log.exp()[:, None] * step)
    gate = torch.sigmoid(x @ layer.gate[0].weight.T @ layer.gate[1].weight.T + layer.gate[1].bias)
    ys = []
    for head in range(HEADS):
        state, rows = x.new_zeros(HEAD, HEAD), []
        for t in range(time):
            state = keep[t, head][:, None] * state
            known = (erase[t, head] * k[t, head]) @ state
            state = state + torch.outer(k[t, head], write[t, head] * v[t, head] - known)
            y = q[t, head] @ state / math.sqrt(HEAD)
            rows.append(y / (y.square().mean() + 1e-5).sqrt() * layer.norm.weight)
        ys.append(torch.stack(rows))
    return (torch.cat(ys, 1) * gate) @ layer.out.weight.T


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("cls", [KimiDeltaAttention, GatedDeltaNet2])
def test_layer_is_its_equations(cls, doubled):
    layer = mixer(cls, negative_eigenvalues=doubled)
    x = torch.randn(70, WIDTH, dtype=torch.float64)
    if cls is KimiDeltaAttention:
        erase = (1 + doubled) * torch.sigmoid(x @ layer.rate.weight.T)[..., None]
        write = erase  # the rate of both
    else:
        erase, write = (torch.sigmoid(x @ g.weight.T).view(70, HEADS, HEAD) for g in (layer.erase, layer.write))
        erase = (1 + doubled) * erase
    right = by_the_equations(layer, x, erase, write)
    assert (layer(x[None])[0][0] - right).norm() <= 1e-12 * right.norm()


def test_equal_gates_make_one_layer_of_the_two():
    kimi, two = mixer(KimiDeltaAttention), mixer(GatedDeltaNet2)
    with torch.no_grad():
        kimi.rate.weight.zero_()
        two.erase.weight.zero_()
        two.write.weight.zero_()
    shared = {name: value for name, value in kimi.state_dict().items() if name in two.state_dict()}
    two.load_state_dict(shared, strict=False)
    x = torch.randn(2, 41, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(kimi(x)[0], two(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", [KimiDeltaAttention, GatedDeltaNet2])
def test_layer_begins_as_released(cls):
    torch.manual_seed(0)
    layer = cls(256, 4)
    assert 1 <= layer.A_log.exp().min() and layer.A_log.exp().max() <= 16
    step = F.softplus(layer.step_bias)
    assert 0.99e-3 <= step.min() and step.max() <= 0.101
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.3)
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert part.bias is None or not part.bias.any()


def test_lower_bound_holds_gates_above_it():
    layer = mixer(KimiDeltaAttention, lower_bound=-5.0)
    x = 100 * torch.randn(1, 50, WIDTH, dtype=torch.float64)
    gates = layer.log_forget(x)
    step = (x @ layer.step[0].weight.T @ layer.step[1].weight.T + layer.step_bias).view(1, 50, HEADS, HEAD)
    torch.testing.assert_close(gates, -5 * torch.sigmoid(layer.A_log.exp()[:, None] * step))
    assert gates.min() >= -5 and gates.min() < -4.9


@pytest.mark.parametrize("cls", [KimiDeltaAttention, GatedDeltaNet2])
def test_gates_with_a_bound_begin_at_the_speed_of_the_library(cls):
    """`safe_gate` of flash-linear-attention 0.6.0 has A_log 0; drawn as without a bound, nearly no channel would forget."""
    drawn = []
    for settings in ({}, {"lower_bound": -5.0}):
        torch.manual_seed(0)
        drawn.append(cls(WIDTH, HEADS, **settings))
    plain, bounded = drawn
    assert plain.A_log.gt(0).all() and bounded.A_log.eq(0).all()
    assert torch.equal(plain.out.weight, bounded.out.weight)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"inner": 15}, "must be a multiple of the 2 heads"), ({"lower_bound": 0.0}, "must be below 0")],
)
@pytest.mark.parametrize("cls", [KimiDeltaAttention, GatedDeltaNet2])
def test_impossible_settings_are_refused(cls, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        cls(WIDTH, HEADS, **settings)
