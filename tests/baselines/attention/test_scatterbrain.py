"""Scatterbrain: the layer against its equations over all pairs of tokens, and its two limits, softmax attention and Performer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.attention.scatterbrain import Scatterbrain
from models.layers import rotary

WIDTH, HEADS, HEAD = 24, 3, 8


def projected(layer: Scatterbrain, x: Tensor) -> list[Tensor]:
    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in layer.qkv(x).chunk(3, -1))
    return [rotary(q, 0), rotary(k, 0), v]


def phi(layer: Scatterbrain, x: Tensor) -> Tensor:
    rows, x = layer.projection.to(x.dtype), x / HEAD**0.25
    both = torch.cat([x @ rows.T, -x @ rows.T], -1)
    return torch.exp(both - (x * x).sum(-1, keepdim=True) / 2) / math.sqrt(both.shape[-1])


def by_the_equations(layer: Scatterbrain, x: Tensor) -> Tensor:
    q, k, v = projected(layer, x)
    f_q, f_k, out = phi(layer, q), phi(layer, k), []
    for t in range(x.shape[1]):
        weights = []
        for s in range(t + 1):
            near = t - s < layer.window
            weight = (q[:, t] * k[:, s]).sum(-1).div(math.sqrt(HEAD)).exp() if near else (f_q[:, t] * f_k[:, s]).sum(-1)
            weights.append(weight[..., None])
        out.append(sum(w * v[:, s] for s, w in enumerate(weights)) / sum(weights))
    return layer.out(torch.stack(out, 1).flatten(2))


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 12)], ids=["whole", "pieces"])
@pytest.mark.parametrize("window", [0, 1, 6])
def test_layer_is_its_equations_with_all_gradients(window, cuts):
    torch.manual_seed(0)
    layer = Scatterbrain(WIDTH, HEADS, window=window).double()
    x = torch.randn(2, 17, WIDTH, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(*grads, strict=True))


def test_window_as_long_as_the_text_is_softmax_attention():
    torch.manual_seed(0)
    layer = Scatterbrain(WIDTH, HEADS, window=40).double()
    x = torch.randn(2, 40, WIDTH, dtype=torch.float64)
    q, k, v = (part.transpose(1, 2) for part in projected(layer, x))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    assert torch.allclose(layer(x)[0], layer.out(exact.flatten(2)), rtol=1e-10, atol=1e-12)


def test_large_late_token_moves_no_earlier_row():
    torch.manual_seed(0)
    layer, x = Scatterbrain(WIDTH, HEADS, window=6), torch.randn(1, 70, WIDTH)
    before = layer(x)[0]
    x[:, 50:] *= 40
    after = layer(x)[0]
    assert torch.equal(after[:, :50], before[:, :50]) and after.isfinite().all()


def test_state_is_the_sums_and_one_window():
    layer = Scatterbrain(WIDTH, HEADS, window=6, random_features=10)
    _, ((mean, most, left, keys, values), place) = layer(torch.randn(2, 50, WIDTH))
    assert (mean.shape, most.shape, left, place) == ((2, HEADS, 10, HEAD + 1), (2, HEADS), 44, 50)
    assert keys.shape == values.shape == (2, 6, HEADS, HEAD)
    assert all(x.untyped_storage().nbytes() == 4 * x.numel() for x in (mean, most, keys, values))


def test_weights_begin_as_the_reference_transformers():
    torch.manual_seed(0)
    layer = Scatterbrain(256, 4)
    assert layer.qkv.weight.var().item() == pytest.approx(1 / 256, rel=0.03)
    assert layer.out.weight.var().item() == pytest.approx(1 / 4 / 256, rel=0.03)
    assert layer.projection.shape == (int(64 * math.log(64)) // 2, 64)


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="multiple of 6"):
        Scatterbrain(WIDTH, HEADS, inner=15)
    for settings in ({"window": -1}, {"random_features": 7}, {"random_features": 0}):
        with pytest.raises(ValueError, match="needs window >= 0 and an even number of random_features"):
            Scatterbrain(WIDTH, HEADS, **settings)
