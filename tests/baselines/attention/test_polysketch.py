"""PolySketchFormer: the layer against its equations over all pairs of tokens, its limits, its sketches, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.attention.polysketch import LearnedSketch, PolySketch, RandomSketch
from models.layers import rotary
from models.ops.native_build import compiler
from models.ops.providers import watch

WIDTH, HEADS, BLOCK = 12, 3, 6


def normed(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    away = x - x.mean(-1, keepdim=True)
    return away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + shift


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sketched(sketch: LearnedSketch | RandomSketch, x: Tensor) -> Tensor:
    if isinstance(sketch, RandomSketch):
        x = normed(x, sketch.gain, sketch.shift)
        first, second = sketch.rows.to(x.dtype)
        return (x @ first) * (x @ second) / math.sqrt(first.shape[1])
    nets = []
    for i in range(2):
        y = gelu(normed(x, sketch.gain[i, :, 0], sketch.shift[i, :, 0]) @ sketch.up[i]) @ sketch.down[i]
        y = normed(y, sketch.next_gain[i, :, 0], sketch.next_shift[i, :, 0])
        nets.append(gelu(y @ sketch.next_up[i]) @ sketch.next_down[i])
    root = math.sqrt(nets[0].shape[-1])
    return root * torch.tanh(nets[0] * nets[1] / root)


def by_the_equations(layer: PolySketch, x: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in layer.qkv(x).chunk(3, -1))
    q, k = rotary(q, 0), rotary(k, 0)
    g_q, g_k = sketched(layer.sketch, q), sketched(layer.sketch, k)
    q = normed(q, layer.gain[0], layer.shift[0])
    k = normed(k, layer.gain[1], layer.shift[1])
    out = []
    for t in range(x.shape[1]):
        weights = []
        for s in range(t + 1):
            same = s // layer.block == t // layer.block
            own = (q[:, t] * k[:, s]).sum(-1) ** 4 if same else (g_q[:, t] * g_k[:, s]).sum(-1) ** 2
            weights.append(own[..., None])
        out.append(sum(w * v[:, s] for s, w in enumerate(weights)) / (1 + sum(weights)))
    return layer.out(torch.stack(out, 1).flatten(2))


def moved(**settings) -> PolySketch:
    torch.manual_seed(0)
    layer = PolySketch(WIDTH, HEADS, **{"sketch_width": 3, "block": BLOCK} | settings).double()
    with torch.no_grad():  # gains of 1 and biases of 0 would hide that they are exchanged
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 12)], ids=["whole", "pieces"])
@pytest.mark.parametrize("sketch", ["learned", "random"])
def test_layer_is_its_equations_with_all_gradients(sketch, cuts):
    layer = moved(sketch=sketch)
    x = torch.randn(2, 17, WIDTH, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-11
    assert all((a - b).norm() <= 1e-9 * b.norm() + 1e-12 for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("provider", ["auto", "chunked", "recurrence"])
def test_a_named_provider_computes_sketches_too(provider):
    layer = moved(provider=provider)
    with watch() as ran:
        layer(torch.randn(1, 9, WIDTH, dtype=torch.float64))
    expected = {"auto": {"chunked", "native"} if compiler() else {"chunked"}}
    assert ran == expected.get(provider, {provider})


def test_one_block_is_polynomial_attention_of_degree_four():
    layer = moved(block=40)
    x = torch.randn(1, 20, WIDTH, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in layer.qkv(x).chunk(3, -1))
    q, k = (normed(rotary(x, 0), layer.gain[i], layer.shift[i]) for i, x in enumerate((q, k)))
    weights = torch.einsum("bthd,bshd->bhts", q, k).pow(4).tril()
    y = torch.einsum("bhts,bshd->bthd", weights, v) / (1 + weights.sum(-1)).transpose(1, 2)[..., None]
    assert torch.allclose(layer(x)[0], layer.out(y.flatten(2)), rtol=1e-10, atol=1e-12)


def test_random_sketches_estimate_the_square():
    torch.manual_seed(0)
    sketch = RandomSketch(16, 200_000)
    q, k = x = F.layer_norm(torch.randn(2, 16), (16,))
    got = torch.dot(*sketch(x)).item()
    assert got == pytest.approx(torch.dot(q, k).item() ** 2, abs=0.03 * 16**2)


def test_state_is_bounded_by_the_open_block():
    layer = PolySketch(WIDTH, HEADS, block=BLOCK, sketch_width=3)
    _, (mean, keys, sketches, values, place) = layer(torch.randn(2, 3 * BLOCK + 2, WIDTH))
    assert mean.shape == (2, HEADS, 6, 5) and place == 3 * BLOCK + 2
    assert [x.shape for x in (keys, sketches, values)] == [(2, 2, HEADS, 4), (2, 2, HEADS, 3), (2, 2, HEADS, 4)]
    assert all(x.untyped_storage().nbytes() == 4 * x.numel() for x in (keys, sketches, values))


def test_weights_begin_as_they_are_told_to():
    torch.manual_seed(0)
    layer = PolySketch(256, 4, sketch_width=16)
    assert layer.qkv.weight.var().item() == pytest.approx(1 / 256, rel=0.03)
    assert layer.out.weight.var().item() == pytest.approx(1 / 4 / 256, rel=0.03)
    for part, fan_in in (("up", 64), ("down", 128), ("next_up", 16), ("next_down", 128)):
        assert getattr(layer.sketch, part).var().item() == pytest.approx(1 / fan_in, rel=0.1)
    assert (layer.sketch.gain == 1).all() and not layer.sketch.next_shift.any()


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="multiple of 6"):
        PolySketch(WIDTH, HEADS, inner=15)
    with pytest.raises(ValueError, match="at least 1, not 0 and 8"):
        PolySketch(WIDTH, HEADS, block=0)
    with pytest.raises(ValueError, match="choose learned or random"):
        PolySketch(WIDTH, HEADS, sketch="hadamard")
