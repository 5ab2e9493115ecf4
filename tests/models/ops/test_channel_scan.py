"""The channel scan's forms against its law in float64: outputs and every gradient, at several widths."""

from __future__ import annotations

import pytest
import torch

from models.ops.channel_scan import channel_scan
from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.native_build import compiler

compiled = pytest.mark.skipif(not compiler(), reason="no C compiler is here")


def block(width: int, channels: int, states: int, rank: int, kernel: int = 4) -> list[torch.Tensor]:
    shapes = [(2 * channels, width), (channels, kernel), (channels,), (rank + 2 * states, channels), (channels, rank)]
    shapes += [(channels,), (channels, states), (channels,), (width, channels)]
    drawn = [torch.randn(shape, dtype=torch.float64) * shape[-1] ** -0.5 for shape in shapes]
    drawn[6] = -drawn[6].exp() * 2
    return drawn


def answers(form: str, leaves: list[torch.Tensor], kind: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """y, and the gradients of x and of both blocks' weights."""
    x, *weights = own = [leaf.to(kind).requires_grad_() for leaf in leaves]
    y = channel_scan(x, BlockWeights(*weights[:9]), BlockWeights(*weights[9:]), provider=form)
    slope = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).cos().view_as(y).to(kind)
    return [y.detach(), *torch.autograd.grad((y * slope).sum(), own)]


def apart(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max(((one.double() - other).abs().max() / other.abs().max()).item() for one, other in zip(a, b, strict=True))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", ["chunked", pytest.param("native", marks=compiled)])
@pytest.mark.parametrize(
    ("rows", "pieces", "sizes"),
    [(5, 6, (4, 8, 16, 1)), (19, 3, (3, 5, 2, 2)), (1, 1, (2, 4, 3, 1)), (33, 17, (2, 4, 3, 1))],
)
def test_forms_are_the_law_with_all_gradients(form, rows, pieces, sizes):
    torch.manual_seed(0)
    leaves = [torch.randn(rows, pieces, sizes[0], dtype=torch.float64), *block(*sizes), *block(*sizes)]
    assert apart(answers(form, leaves), answers("recurrence", leaves)) < 1e-11


@compiled
def test_native_keeps_float32s_digits_and_does_not_hang_on_threads():
    torch.manual_seed(0)
    leaves = [torch.randn(70, 8, 4, dtype=torch.float64), *block(4, 8, 16, 1), *block(4, 8, 16, 1)]
    single = answers("native", leaves, torch.float32)
    assert apart(single, answers("recurrence", leaves)) < 2e-5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert all(map(torch.equal, single, answers("native", leaves, torch.float32)))
    finally:
        torch.set_num_threads(threads)


@compiled
def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    x, *weights = [torch.randn(9, 4, 4, dtype=torch.float64), *block(4, 8, 2, 1), *block(4, 8, 2, 1)]
    blocks = BlockWeights(*weights[:9]), BlockWeights(*weights[9:])
    right = channel_scan(x.bfloat16().double(), *blocks, provider="recurrence")
    y = channel_scan(x.bfloat16(), *(BlockWeights(*(w.float() for w in one)) for one in blocks), provider="native")
    assert y.dtype == torch.bfloat16
    assert (y.double() - right).abs().max() < 1e-2 * right.abs().max()


@compiled
def test_weights_of_another_shape_are_refused_and_no_token_is_nothing():
    weights = BlockWeights(*block(4, 8, 2, 1))
    with pytest.raises(ValueError, match="skip has the shape"):
        channel_scan(torch.zeros(2, 3, 4).double(), weights, weights._replace(skip=torch.zeros(7)), provider="native")
    for form in ("chunked", "native", "recurrence"):
        assert channel_scan(torch.zeros(0, 3, 4).double(), weights, weights, provider=form).shape == (0, 3, 4)
