"""Fast weights: the layer against its equations token by token, the features by hand, its bound, and how it begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.attention.fast_weights import EPSILON, FastWeights, dpfp

KINDS = [("delta", "dpfp"), ("delta", "elu"), ("sum", "dpfp"), ("sum", "elu")]


def phi(x: Tensor, features: str, nu: int) -> Tensor:
    """One vector's features, index by index."""
    if features == "elu":
        return torch.where(x > 0, x + 1, x.exp())
    r = torch.cat([x.clamp(min=0), (-x).clamp(min=0)])
    return torch.cat([r * torch.cat([r[-shift:], r[:-shift]]) for shift in range(1, nu + 1)])


def by_the_equations(layer: FastWeights, x: Tensor) -> Tensor:
    head = layer.out.in_features // layer.heads
    rows = []
    for text in x:
        matrices, sums = [0.0] * layer.heads, [0.0] * layer.heads
        ys = []
        for token in text:
            q, k, v, *rate = layer.project(token).split(layer.widths)
            y = []
            for h in range(layer.heads):
                own = slice(h * head, (h + 1) * head)
                a, b = (phi(part[own], layer.features, layer.nu) for part in (q, k))
                if layer.update == "delta":
                    a, b = a / a.sum(), b / b.sum()
                    old = matrices[h] @ b if len(ys) else torch.zeros_like(v[own])
                    matrices[h] = matrices[h] + torch.outer(rate[0][h].sigmoid() * (v[own] - old), b)
                    y.append(matrices[h] @ a / head**0.5)
                else:
                    matrices[h], sums[h] = matrices[h] + torch.outer(v[own], b), sums[h] + b
                    y.append((matrices[h] @ a / head**0.5) / (sums[h] @ a / head**0.5 + EPSILON))
            ys.append(layer.out(torch.cat(y)))
        rows.append(torch.stack(ys))
    return torch.stack(rows)


@pytest.mark.parametrize("cuts", [(), (1, 4, 5, 9)], ids=["whole", "pieces"])
@pytest.mark.parametrize("update, features", KINDS)
def test_layer_is_its_equations_with_all_gradients(update, features, cuts):
    torch.manual_seed(0)
    layer = FastWeights(12, 2, inner=8, update=update, features=features, nu=3).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(20)
    x = torch.randn(2, 13, 12, dtype=torch.float64, requires_grad=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    answers = torch.cat(pieces, 1), by_the_equations(layer, x)
    grads = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in answers]
    assert (answers[0] - answers[1]).abs().max() < 1e-10
    assert all((a - b).abs().max() < 1e-9 * (1 + b.abs().max()) for a, b in zip(*grads, strict=True))


def test_dpfp_by_hand():
    """r of (1, -2) is (1, 0, 0, 2); rolled by one (2, 1, 0, 0), by two (0, 2, 1, 0)."""
    assert dpfp(torch.tensor([1.0, -2.0]), 2).tolist() == [2, 0, 0, 0, 0, 0, 0, 0]
    assert dpfp(torch.tensor([1.0, 2.0]), 1).tolist() == [0, 2, 0, 0]


@torch.no_grad()
def test_the_delta_rule_never_overshoots():
    torch.manual_seed(0)
    layer = FastWeights(16, 2)
    for weight in layer.parameters():
        weight.mul_(100)
    x = torch.randn(1, 2000, 16)
    first, (early,) = layer(x[:, :200])
    last, (late,) = layer(x)
    assert late.abs().max() < 3 * early.abs().max() and last.isfinite().all()


def test_a_key_of_a_single_number_has_finite_gradients():
    layer, x = FastWeights(4, 1), torch.zeros(1, 3, 4, requires_grad=True)
    y, _ = layer(x)
    y.sum().backward()
    assert not y.any() and x.grad.isfinite().all()


def test_weights_begin_as_the_authors_do():
    torch.manual_seed(0)
    layer = FastWeights(256, 4)
    for weight in layer.parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_what_cannot_be_built_says_why():
    with pytest.raises(ValueError, match="update delta or sum and features dpfp or elu, not add"):
        FastWeights(32, 4, update="add")
    with pytest.raises(ValueError, match=r"multiple of heads \(4\) and nu in"):
        FastWeights(32, 4, nu=16)
