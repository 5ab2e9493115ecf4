"""LaCT: the layer against its equations, token by token, and the authors' initialisation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.third_generation.lact import LaCT

WIDTH, HEADS, CHUNK = 16, 4, 5


def layer(**settings) -> LaCT:
    torch.manual_seed(0)
    made = LaCT(WIDTH, HEADS, chunk=CHUNK, **settings).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def turn(x: Tensor, place: int) -> Tensor:
    """x [.., d] turned at a place: (x_i, x_{i + d/2}) by place 10000^(-2 i / d)."""
    half = x.shape[-1] // 2
    angle = place * 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def f(x: Tensor, weights: list[Tensor]) -> Tensor:
    """The fast network's answer to x [h, d]."""
    gate = torch.einsum("hd,hdn->hn", x, weights[0])
    hidden = gate * torch.sigmoid(gate) * torch.einsum("hd,hdn->hn", x, weights[2])
    return torch.einsum("hn,hnd->hd", hidden, weights[1])


def fast_one(mixer: LaCT, x: Tensor, which: int, place: int) -> Tensor:
    """The fast network's query (0) or key (1) [h, d] of one token's x [inner]."""
    x = x * mixer.scale[which] + mixer.offset[which]
    x = (x * torch.sigmoid(x)).view(mixer.fast_heads, -1)
    x = x / (x.norm(dim=-1, keepdim=True) + 1e-5)
    return turn(x.reshape(HEADS, -1), place).reshape(mixer.fast_heads, -1)


def loop(mixer: LaCT, x: Tensor) -> Tensor:
    """The layer's y of one text x [t, width]."""
    inner, fast = mixer.out.in_features, mixer.fast_heads
    first = [one() for one in mixer.first]
    weights, before = first, [torch.zeros_like(w) for w in first]
    seen, chunk, ys = [], [], []

    for t, token in enumerate(x):
        q, k, v = (mixer.qkv.weight @ token).split(inner)
        seen.append((turn(k.view(HEADS, -1), t), v.view(HEADS, -1)))
        keys, values = (torch.stack(one) for one in zip(*seen[-CHUNK:], strict=True))
        scores = torch.einsum("hd,shd->hs", turn(q.view(HEADS, -1), t), keys) / math.sqrt(inner // HEADS)
        attended = torch.einsum("hs,shd->hd", scores.softmax(-1), values).flatten()
        y = f(fast_one(mixer, q, 0, t), weights)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * mixer.norm.weight
        gate = mixer.gate.weight @ token + mixer.gate.bias
        ys.append(mixer.out.weight @ (attended + (y * (gate * torch.sigmoid(gate))[:, None]).flatten()))
        rates = F.softplus(mixer.rates.weight @ token + mixer.rates.bias + math.log(math.expm1(0.001))).view(fast, 3)
        moves = torch.sigmoid(mixer.momentum.weight @ token + mixer.momentum.bias)
        chunk.append((fast_one(mixer, k, 1, t), (v * torch.sigmoid(v)).view(fast, -1), rates, moves))
        if len(chunk) == CHUNK:
            mean = torch.stack([one[3] for one in chunk]).mean(0)[:, None, None]
            moved = []
            for i in range(3):
                total = sum((r[:, i] * (v * f(k, weights)).sum(-1)).sum() for k, v, r, _ in chunk)
                (gradient,) = torch.autograd.grad(total, weights[i], create_graph=True)
                before[i] = gradient + mean * before[i]
                moved.append(weights[i] + before[i])
            pairs = zip(moved, first, strict=True)
            weights = [w / (w.norm(dim=1, keepdim=True) + 1e-5) * one.norm(dim=1, keepdim=True) for w, one in pairs]
            chunk = []
    return torch.stack(ys)


@pytest.mark.parametrize(("rank", "pieces"), [(0, [18]), (2, [1, 9, 8])])
def test_layer_is_its_equations(rank, pieces):
    mixer = layer(rank=rank)
    x = torch.randn(1, 18, WIDTH, dtype=torch.float64, requires_grad=True)
    ys, state = [], None
    for piece in x.split(pieces, 1):
        y, state = mixer(piece, state)
        ys.append(y)
    y, right = torch.cat(ys, 1)[0], loop(mixer, x[0])
    torch.testing.assert_close(y, right, rtol=1e-9, atol=1e-11)
    leaves = [x, *mixer.parameters()]
    way = torch.randn_like(y)
    answers = (torch.autograd.grad((one * way).sum(), leaves) for one in (y, right))
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)


def test_initial_values_are_the_authors():
    torch.manual_seed(0)
    whole, low = LaCT(256, 8), LaCT(256, 8, rank=8)
    assert whole.fast_heads == 4 and [one().shape for one in whole.first] == [(4, 64, 64)] * 3
    for linear in (whole.qkv, whole.out, whole.rates, whole.gate, whole.momentum):
        assert linear.weight.std().item() == pytest.approx(0.006, rel=0.1)
        assert linear.bias is None or not linear.bias.any()
    assert (whole.scale == 1).all() and not whole.offset.any() and (whole.norm.weight == 1).all()
    assert all(one().std().item() == pytest.approx(1 / 8, rel=0.1) for one in whole.first)
    assert low.first[1].whole is not None  # W_1 has no low rank
    spread = low.first[0]() - torch.eye(64) / 2
    assert spread.std().item() == pytest.approx(0.25 / 8, rel=0.1)
    rates = F.softplus(torch.tensor(math.log(math.expm1(0.001))))
    assert rates.item() == pytest.approx(0.001)


def test_heads_and_settings():
    assert [LaCT(48, heads).fast_heads for heads in (1, 2, 3, 4, 6, 8)] == [1, 2, 1, 4, 2, 4]
    assert LaCT(16, 4, momentum=False).momentum is None
    with pytest.raises(ValueError, match="even head width"):
        LaCT(12, 4, inner=12)
    with pytest.raises(ValueError, match="chunk >= 1 and rank >= 0"):
        LaCT(16, 4, chunk=0)
