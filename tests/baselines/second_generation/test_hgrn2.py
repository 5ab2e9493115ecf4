"""HGRN2: the layer against its equations token by token, and the bounds that rise with depth."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from baselines.second_generation.hgrn2 import HGRN2, HGRN2Layer
from models.language_model import Size

SIZE = Size(32, 12, 4, 2)


def test_layer_is_its_equations():
    torch.manual_seed(0)
    layer = HGRN2Layer(6, 2, 8, "auto").double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    x, bound = torch.randn(2, 21, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    for given in (bound, None):
        y, last = layer(x, given, None)
        S = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
        for t in range(21):
            q, f, v = (x[:, t] @ layer.project.weight.T).chunk(3, -1)
            least = 0 if given is None else given
            f = (least + (1 - least) * f.sigmoid()).view(2, 2, 4, 1)
            S = f * S + (1 - f) * v.view(2, 2, 1, 4)
            read = (S * (F.silu(q) / 2).view(2, 2, 4, 1)).sum(2).flatten(1)
            normed = read * (read.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * layer.norm.weight
            torch.testing.assert_close(y[:, t], normed @ layer.out.weight.T)
        torch.testing.assert_close(last, S)


def test_bounds_begin_evenly_and_always_rise():
    torch.manual_seed(0)
    model = HGRN2(SIZE, 8)
    first, *others = model.lower_bounds()
    assert first is None
    for layer, bound in enumerate(others, 1):
        torch.testing.assert_close(bound, torch.full((12,), layer / 4))
    with torch.no_grad():
        model.bounds.normal_(std=3.0)
    _, *others = model.lower_bounds()
    bounds = torch.stack([torch.zeros(12), *others])
    assert (bounds.diff(dim=0) > 0).all() and bounds.max() < 1
    shares = model.bounds.softmax(0)
    torch.testing.assert_close(bounds, shares.cumsum(0) - shares[0])


def test_all_bounds_learn_through_the_layers_behind():
    torch.manual_seed(0)
    model = HGRN2(SIZE, 8)
    logits, _ = model(torch.randint(32, (2, 30)))
    logits.square().sum().backward()
    assert (model.bounds.grad.abs().amax(1) > 0).all() and model.bounds.grad.isfinite().all()
    assert HGRN2(Size(32, 12, 1, 2), 8).bounds is None


def test_begins_as_the_library_does():
    torch.manual_seed(0)
    layer = HGRN2Layer(64, 2, 64, "auto")
    for weight in (layer.project.weight, layer.out.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="inner width 9 must be a multiple of its 2 heads"):
        HGRN2(SIZE, 8, inner=9)
