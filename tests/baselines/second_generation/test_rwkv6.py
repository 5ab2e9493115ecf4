"""RWKV-6: the block against its equations, token by token, and the authors' initialisation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.second_generation.rwkv6 import RWKV6
from models.language_model import Size, build

WIDTH, HEADS = 12, 3


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


def block(index: int, **settings) -> RWKV6:
    """A block in float64 with noise on everything that begins at zero or one."""
    torch.manual_seed(index)
    layer = RWKV6(WIDTH, HEADS, mix_rank=3, decay_rank=5, index=index, depth=3, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def normed(x: Tensor, norm) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()


def loop(layer: RWKV6, x: Tensor) -> Tensor:
    """x + the block's answer, x [b, t, width], written from the equations."""
    norm0, norm1, norm2 = layer.norm_embedding, layer.norm_time, layer.norm_channels
    batch, time, _ = x.shape
    inner = layer.out.in_features
    before = between = torch.zeros(batch, WIDTH, dtype=x.dtype)
    S = torch.zeros(batch, HEADS, inner // HEADS, inner // HEADS, dtype=x.dtype)
    ys = []
    for t in range(time):
        stream = x[:, t] if norm0 is None else normed(x[:, t], norm0) * norm0.weight + norm0.bias
        n = normed(stream, norm1) * norm1.weight + norm1.bias
        D = before - n
        A = layer.mix_down.unflatten(1, (5, -1))
        mixed = []
        for i in range(5):
            low = torch.tanh((n + D * layer.mix_first) @ A[:, i])
            mixed.append(n + D * (layer.mix[i] + low @ layer.mix_up[i]))
        w = torch.exp(-torch.exp(layer.decay + torch.tanh(mixed[0] @ layer.decay_down) @ layer.decay_up))
        maps = (layer.key, layer.value, layer.query, layer.gate)
        k, v, r, g = (m @ p.weight.T for m, p in zip(mixed[1:], maps, strict=True))
        w, k, v, r = (part.view(batch, HEADS, -1) for part in (w, k, v, r))
        written = k[..., :, None] * v[..., None, :]
        y = ((S + layer.bonus[None, :, :, None] * written) * r[..., None]).sum(2)
        S = w[..., None] * S + written
        y = normed(y, layer.norm).flatten(1) * layer.norm.weight + layer.norm.bias
        stream = stream + (y * g * torch.sigmoid(g)) @ layer.out.weight.T
        m = normed(stream, norm2) * norm2.weight + norm2.bias
        mk, mr = (m + (between - m) * share for share in layer.channels.mix)
        hidden = torch.relu(mk @ layer.channels.key.weight.T) ** 2 @ layer.channels.value.weight.T
        ys.append(stream + torch.sigmoid(mr @ layer.channels.gate.weight.T) * hidden)
        before, between = n, m
    return torch.stack(ys, 1)


@pytest.mark.parametrize(("index", "pieces"), [(0, [23]), (2, [1, 17, 2, 3])])
def test_block_is_its_equations(index, pieces):
    layer = block(index, inner=18)
    x = torch.randn(2, 23, WIDTH, dtype=torch.float64, requires_grad=True)
    ys, state = [], None
    for piece in x.split(pieces, 1):
        y, state = layer(piece, state)
        ys.append(piece + y)
    y, right = torch.cat(ys, 1), loop(layer, x)
    assert relative(y, right) < 1e-12
    leaves = {"x": x, **dict(layer.named_parameters())}
    way = torch.randn_like(y)
    answers = [torch.autograd.grad((one * way).sum(), list(leaves.values())) for one in (y, right)]
    for name, got, expected in zip(leaves, *answers, strict=True):
        assert relative(got, expected) < 1e-9, name


def test_gates_that_are_closed_keep_everything_finite():
    layer = block(1)
    with torch.no_grad():
        layer.decay[::2], layer.decay[1::2] = 200, -200
    x = torch.randn(1, 40, WIDTH, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    y.sum().backward()
    assert relative(x + y, loop(layer, x)) < 1e-11
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_initial_values_are_the_authors():
    width, depth = 64, 3
    for index, one in enumerate(build("rwkv6", Size(64, width, depth, 2), match=False).blocks):
        layer = one.mixer
        late, early = index / (depth - 1), 1 - index / depth
        for i in (0, 1, 37, width - 1):
            place, rising = i / width, i / (width - 1)
            shares = [1 - place**early] * 2 + [1 - place**early - 0.3 * late] + [1 - place ** (early / 2)] * 2
            assert layer.mix[:, i].tolist() == pytest.approx(shares, abs=1e-6)
            assert layer.mix_first[i].item() == pytest.approx(1 - place**early, abs=1e-6)
            assert layer.decay[i].item() == pytest.approx(-6 + 5 * rising ** (0.7 + 1.3 * late), abs=1e-5)
            bonus = late * (1 - rising) + 0.1 * ((i + 1) % 3 - 1)
            assert layer.bonus.flatten()[i].item() == pytest.approx(bonus, abs=1e-6)
            assert layer.channels.mix[:, i].tolist() == pytest.approx([1 - place ** (early**3)] * 2, abs=1e-6)
        assert layer.norm.weight.unique().item() == pytest.approx(((1 + index) / depth) ** 0.7)
        assert (layer.norm_embedding is None) == (index > 0)
        feed = layer.channels
        for zero in (layer.mix_down, layer.decay_down, *(p.weight for p in (layer.out, feed.value, feed.gate))):
            assert not zero.any()
        gains = {layer.key: 0.1, layer.gate: 0.1, layer.value: 1, layer.query: 1, feed.key: 1}
        for linear, gain in gains.items():
            product = linear.weight.T @ linear.weight
            torch.testing.assert_close(product, gain**2 * torch.eye(width), rtol=0, atol=1e-5)
        assert layer.mix_up.abs().max() <= 0.01 and layer.decay_up.abs().max() <= 0.01
        assert feed.key.out_features == 224


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must be a multiple of its 3 heads"):
        RWKV6(12, 3, inner=10)
    with pytest.raises(ValueError, match="mix_rank and decay_rank >= 1"):
        RWKV6(12, 3, mix_rank=0)
