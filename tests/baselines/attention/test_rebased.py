"""ReBased: the layer against its equations over all pairs of tokens, and what its settings do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.attention.rebased import ReBased

WIDTH, HEADS, FEATURE = 12, 3, 5


def normed(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    away = x - x.mean(-1, keepdim=True)
    return away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def by_the_equations(layer: ReBased, x: Tensor) -> Tensor:
    q, k, v = layer.qkv(x).split([HEADS * FEATURE, HEADS * FEATURE, WIDTH], -1)
    if layer.norm == "all":
        q, k = (normed(*pair).unflatten(-1, (HEADS, -1)) for pair in ((q, layer.query_norm), (k, layer.key_norm)))
    else:
        q, k = (normed(part.unflatten(-1, (HEADS, -1)), layer.query_norm) for part in (q, k))
    v, out = v.unflatten(-1, (HEADS, -1)), []
    for t in range(x.shape[1]):
        weights = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True) ** 2 / FEATURE
        out.append((weights * v[:, : t + 1]).sum(1) / (weights.sum(1) + 1e-12))
    return layer.out(torch.stack(out, 1).flatten(2))


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 17)], ids=["whole", "pieces"])
@pytest.mark.parametrize("norm", ["all", "head"])
def test_layer_is_its_equations_with_all_gradients(norm, cuts):
    torch.manual_seed(0)
    layer = ReBased(WIDTH, HEADS, feature=FEATURE, norm=norm).double()
    with torch.no_grad():  # gains of 1 and biases of 0 would hide that they are exchanged
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, 23, WIDTH, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-11
    assert all((a - b).norm() <= 1e-9 * b.norm() + 1e-12 for a, b in zip(*grads, strict=True))


def test_order_of_the_past_is_heard_with_a_convolution_alone():
    torch.manual_seed(0)
    x = torch.randn(1, 6, WIDTH)
    for conv, same in ((0, True), (3, False)):
        layer = ReBased(WIDTH, HEADS, conv=conv)
        assert torch.allclose(layer(x)[0][:, -1], layer(x[:, [0, 1, 2, 4, 3, 5]])[0][:, -1], atol=1e-5) == same


def test_weights_begin_as_the_reference_transformers():
    torch.manual_seed(0)
    layer = ReBased(256, 4)
    assert layer.qkv.weight.var().item() == pytest.approx(1 / 256, rel=0.03)
    assert layer.out.weight.var().item() == pytest.approx(1 / 4 / 256, rel=0.03)


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="multiple of heads"):
        ReBased(WIDTH, HEADS, inner=10)
    with pytest.raises(ValueError, match="choose all or head"):
        ReBased(WIDTH, HEADS, norm="none")
