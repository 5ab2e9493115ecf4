"""RWKV-4: its equations token by token, how a layer's place decides its beginning, and keys that are out of bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import layer_norm

from baselines.first_generation.rwkv4 import LARGEST, RWKV4


def moved(index: int, depth: int, width: int = 6) -> RWKV4:
    """A layer whose matrices are not 0."""
    torch.manual_seed(0)
    layer = RWKV4(width, 2, index=index, depth=depth).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def normed(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, 1e-5)


@pytest.mark.parametrize("index", [0, 1])
@torch.no_grad()
def test_block_is_its_equations_token_by_token(index):
    layer, x = moved(index, 3), torch.randn(2, 15, 6, dtype=torch.float64)
    time, channels = layer.time, layer.channels
    stream = x + layer(x)[0]
    last = feed_last = num = den = torch.zeros(2, 6, dtype=torch.float64)
    for t in range(15):
        u = normed(x[:, t], layer.stream_norm) if index == 0 else x[:, t]
        n = normed(u, layer.time_norm)
        k, v, r = (
            part(n * mu + last * (1 - mu))
            for part, mu in (
                (time.key, time.mix_key),
                (time.value, time.mix_value),
                (time.receptance, time.mix_receptance),
            )
        )
        mean = (num + torch.exp(time.bonus + k) * v) / (den + torch.exp(time.bonus + k))
        num, den = (torch.exp(-time.decay.exp()) * s + torch.exp(k) * g for s, g in ((num, v), (den, 1)))
        u = u + time.out(r.sigmoid() * mean)
        f = normed(u, layer.channel_norm)
        k, r = (
            part(f * mu + feed_last * (1 - mu))
            for part, mu in ((channels.key, channels.mix[0]), (channels.gate, channels.mix[1]))
        )
        u = u + r.sigmoid() * channels.value(k.relu() ** 2)
        assert (stream[:, t] - u).norm() < 1e-13 * u.norm()
        last, feed_last = n, f


def test_beginning_depends_on_the_layer_as_in_the_authors_code():
    layers = [RWKV4(8, 2, index=index, depth=3) for index in range(3)]
    assert layers[0].stream_norm is not None and layers[1].stream_norm is None
    for index, layer in enumerate(layers):
        late, early = index / 2, 1 - index / 3
        for i in range(8):
            assert layer.time.decay[i].item() == pytest.approx(-5 + 8 * (i / 7) ** (0.7 + 1.3 * late), rel=1e-5)
            assert layer.time.bonus[i].item() == pytest.approx(math.log(0.3) + 0.5 * ((i + 1) % 3 - 1), rel=1e-5)
            assert layer.time.mix_key[i].item() == pytest.approx((i / 8) ** early, rel=1e-5)
            assert layer.time.mix_value[i].item() == pytest.approx((i / 8) ** early + 0.3 * late, rel=1e-5)
            assert layer.time.mix_receptance[i].item() == pytest.approx((i / 8) ** (early / 2), rel=1e-5)
            assert layer.channels.mix[0, i] == layer.channels.mix[1, i] == layer.time.mix_key[i]
        for part in (layer.time.key, layer.time.receptance, layer.time.out):
            assert not part.weight.any()
        assert not layer.channels.value.weight.any() and not layer.channels.gate.weight.any()
        eye = torch.eye(8)
        assert (layer.time.value.weight @ layer.time.value.weight.T - eye).abs().max() < 1e-5
        assert (layer.channels.key.weight.T @ layer.channels.key.weight - 4 * eye).abs().max() < 1e-5
    assert RWKV4(1, 1).time.decay.isfinite().all()


@pytest.mark.parametrize("size", [-1e3, -1.0, 1.0, 1e3])
def test_keys_far_out_of_bounds_give_finite_numbers_and_gradients(size):
    layer = moved(1, 2).float()
    with torch.no_grad():
        layer.time.key.weight.mul_(abs(size)), layer.time.bonus.fill_(math.copysign(abs(size) ** 0.5, size))
    x = torch.randn(2, 300, 6, requires_grad=True)
    y, state = layer(x)
    y.square().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(part.isfinite().all() for part in state)
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_first_token_is_its_own_value_whatever_its_key():
    layer = moved(1, 2)
    x = torch.randn(2, 1, 6, dtype=torch.float64)
    other = moved(1, 2)
    with torch.no_grad():
        other.time.key.weight.mul_(LARGEST)
    assert (layer(x)[0] - other(x)[0]).norm() < 1e-13
