"""Local multi-query attention: the layer against its equations token by token, its state, and how it begins."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._pytree import tree_leaves

from baselines.attention.local_attention import LocalAttention
from models.language_model import Size, build


def turned(x: torch.Tensor, place: int) -> torch.Tensor:
    """One head's numbers [.., d]: the first half in pairs (j, j + d / 4), by place * 10000^(-2 j / (d / 2))."""
    head, out = x.shape[-1], x.clone()
    for j in range(quarter := head // 4):
        angle = place * 10000.0 ** (-2 * j / (head / 2))
        one, other = x[..., j], x[..., j + quarter]
        out[..., j] = one * math.cos(angle) - other * math.sin(angle)
        out[..., j + quarter] = other * math.cos(angle) + one * math.sin(angle)
    return out


def by_the_equations(layer: LocalAttention, x: torch.Tensor) -> torch.Tensor:
    keys, values, out = [], [], []
    for place, row in enumerate(x.unbind(1)):
        q = turned(layer.query(row).unflatten(-1, (layer.heads, -1)), place)
        k, v = layer.key_value(row).chunk(2, dim=-1)
        keys, values = [*keys, turned(k, place)][-layer.window :], [*values, v][-layer.window :]
        scores = torch.einsum("bhd,nbd->bhn", q, torch.stack(keys)) / math.sqrt(layer.head)
        y = torch.einsum("bhn,nbd->bhd", scores.softmax(-1), torch.stack(values))
        out.append(layer.out(y.flatten(1)))
    return torch.stack(out, 1)


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 6, 17)], ids=["whole", "pieces"])
@pytest.mark.parametrize("window", [1, 5, 40])
def test_layer_is_its_equations_with_all_gradients(window, cuts):
    torch.manual_seed(0)
    layer = LocalAttention(24, 3, window).double()
    x = torch.randn(2, 23, 24, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-12
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(*grads, strict=True))


def test_state_holds_one_head_of_the_window():
    layer = LocalAttention(32, 4, window=6)
    _, (keys, values, place) = layer(torch.randn(2, 50, 32))
    assert keys.shape == values.shape == (2, 5, 1, 8) and place == 50
    assert all(leaf.untyped_storage().nbytes() == 2 * 5 * 8 * 4 for leaf in tree_leaves((keys, values)))


def test_weights_begin_as_the_authors_do():
    torch.manual_seed(0)
    layer = build("local-attention", Size(16, 256, 3, 4), match=False).blocks[0].mixer
    for weight, variance in ((layer.query, 1 / 256), (layer.key_value, 1 / 256), (layer.out, 2 / (3 * 256))):
        assert weight.weight.var().item() == pytest.approx(variance, rel=0.03)
    assert not layer.out.bias.any() and layer.query.bias is None and layer.key_value.bias is None


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="make the width 24 a multiple of 16"):
        LocalAttention(24, 4)
    with pytest.raises(ValueError, match="window must be at least 1, not 0"):
        LocalAttention(32, 4, window=0)
