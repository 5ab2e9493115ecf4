"""Based: each of its three layers against its equations over pairs of tokens, its pattern, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.attention.based import Based, GatedConvolution, SlidingWindow, TaylorAttention
from models.layers import rotary
from models.shell.model import Size

HEADS, FEATURE, WINDOW = 2, 3, 5


def taylor(layer: TaylorAttention, x: Tensor) -> Tensor:
    q, k = (part.unflatten(-1, (HEADS, FEATURE)) for part in layer.query_key(x).chunk(2, -1))
    v, out = layer.value(x).unflatten(-1, (HEADS, -1)), []
    for t in range(x.shape[1]):
        s = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True) / math.sqrt(FEATURE)
        weights = 1 + s + s**2 / 2
        out.append((weights * v[:, : t + 1]).sum(1) / (weights.sum(1) + 1e-12))
    return layer.out(torch.stack(out, 1).flatten(2))


def windowed(layer: SlidingWindow, x: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in layer.qkv(x).chunk(3, -1))
    q, k, out = rotary(q, 0), rotary(k, 0), []
    for t in range(x.shape[1]):
        seen = slice(max(0, t - WINDOW + 1), t + 1)
        weights = ((q[:, t, None] * k[:, seen]).sum(-1, keepdim=True) / math.sqrt(q.shape[-1])).softmax(1)
        out.append((weights * v[:, seen]).sum(1))
    return layer.out(torch.stack(out, 1).flatten(2))


def convolved(layer: GatedConvolution, x: Tensor) -> Tensor:
    mixed, gate = layer.project(x).chunk(2, -1)
    weight, time = layer.convolution.weight[:, 0], x.shape[1]
    rows = [sum(mixed[:, t - j] * weight[:, -1 - j] for j in range(3) if t >= j) for t in range(time)]
    rows = torch.stack(rows, 1)
    return layer.out(rows * rows.sigmoid() * gate)


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 17)], ids=["whole", "pieces"])
@pytest.mark.parametrize(("index", "equations"), [(0, convolved), (1, taylor), (2, windowed)])
def test_each_layer_is_its_equations_with_all_gradients(index, equations, cuts):
    torch.manual_seed(0)
    model = Based(Size(16, 8, 3, HEADS), 8, feature=FEATURE, window=WINDOW).double()
    layer = model.blocks[index].mixer
    x = torch.randn(2, 23, 8, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(*grads, strict=True))


def test_pattern_repeats_through_the_depth():
    names = {GatedConvolution: "c", TaylorAttention: "l", SlidingWindow: "w"}
    for pattern, expected in ((None, "clwccclwccc"), ("window, linear", "wlwlwlwlwlw")):
        model = Based(Size(16, 8, 11, HEADS), 8, **({"pattern": pattern} if pattern else {}))
        assert "".join(names[type(block.mixer)] for block in model.blocks) == expected


def test_weights_begin_as_the_authors_do():
    """N(0, 2 / (5 width)), out maps with that deviation over sqrt(2 depth), biases 0."""
    torch.manual_seed(0)
    model = Based(Size(16, 128, 3, 4), 8)
    conv, linear, window = (block.mixer for block in model.blocks)
    for layer in (conv.project, linear.query_key, linear.value, window.qkv):
        assert layer.weight.var().item() == pytest.approx(0.4 / 128, rel=0.05)
    for layer in (conv.out, linear.out, window.out):
        assert layer.weight.var().item() == pytest.approx(0.4 / 128 / 6, rel=0.05)
    assert not conv.project.bias.any() and not conv.out.bias.any() and linear.out.bias is None


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="made of conv, linear and window"):
        Based(Size(16, 8, 3, HEADS), 8, pattern="conv,attention")
    with pytest.raises(ValueError, match="of at least 1, not 8, 0, 3"):
        Based(Size(16, 8, 3, HEADS), 8, window=0)
    with pytest.raises(
        ValueError, match=r"\(conv, linear, window, ...\) do not fit into a depth of 2: .* a depth of 3 or more"
    ):
        Based(Size(16, 8, 2, HEADS), 8)
    assert len(Based(Size(16, 8, 2, HEADS), 8, pattern="conv,linear").blocks) == 2
