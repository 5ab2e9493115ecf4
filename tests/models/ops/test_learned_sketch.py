"""Learned sketches: the fast forms against the law, any widths and numbers of vectors, with all gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.learned_sketch import chunked as tiles
from models.ops.learned_sketch import learned_sketch
from models.ops.native_build import compiler

NATIVE = pytest.param("native", marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))
FORMS = ["chunked", NATIVE]
SHAPES = [(1, 16, 8), (66, 4, 3), (200, 33, 5), (7, 1, 1), (131, 7, 8)]  # vectors, their width, the sketch's


def given(rows: int, width: int, sketch: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(rows)
    shapes = (2, 5 * sketch, width + 1), (2, sketch, 5 * sketch), (2, 5 * sketch, sketch + 1), (2, sketch, 5 * sketch)
    drawn = (torch.randn(shape, generator=draw, dtype=torch.float64) / shape[-1] ** 0.5 for shape in shapes)
    return torch.randn(rows, width, generator=draw, dtype=torch.float64), *drawn


def answers(provider: str, inputs: tuple[Tensor, ...], kind: torch.dtype) -> list[Tensor]:
    leaves = [x.to(kind, copy=True).requires_grad_() for x in inputs]
    y = learned_sketch(*leaves, provider=provider)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert y.dtype == kind
    return [y.detach(), *torch.autograd.grad((y * weight.to(kind)).sum(), leaves)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_form_is_the_law(shape, form):
    inputs = given(*shape)
    right = answers("recurrence", inputs, torch.float64)
    # behind a LayerNorm of one number everything is zero, and so are gradients: only rounding is left of them
    for kind, bound in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        for got, expected in zip(answers(form, inputs, kind), right, strict=True):
            assert (got - expected).norm() <= bound * expected.norm() + bound * 1e-2


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_that_is_one_number_for_all_is_read_as_it_is(form):
    inputs = [x.requires_grad_() for x in given(50, 4, 3)]
    grads = [torch.autograd.grad(learned_sketch(*inputs, provider=one).sum(), inputs) for one in (form, "recurrence")]
    assert all((a - b).norm() <= 1e-12 * b.norm() for a, b in zip(*grads, strict=True))


def test_tiles_change_nothing(monkeypatch):
    inputs, found = given(66, 4, 3), []
    for size in (1000, 7):  # the last tile is a short one
        monkeypatch.setattr(tiles, "TILE", size)
        found.append(answers("chunked", inputs, torch.float64))
    assert all((a - b).norm() <= 1e-11 * b.norm() + 1e-13 for a, b in zip(*found, strict=True))


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
def test_number_of_threads_changes_no_digit():
    inputs, before, found = given(2000, 16, 8), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(answers("native", inputs, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("form", ["recurrence", *FORMS])
def test_no_vectors_give_none(form):
    inputs = [x.requires_grad_() for x in given(5, 4, 3)]
    inputs[0] = torch.zeros(2, 0, 4, dtype=torch.float64, requires_grad=True)
    y = learned_sketch(*inputs, provider=form)
    assert y.shape == (2, 0, 3)
    assert not any(grad.any() for grad in torch.autograd.grad(y.sum(), inputs))


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
def test_half_precision_is_computed_in_float32_and_wrong_shapes_are_named():
    inputs = given(9, 4, 3)
    half = [x.to(torch.bfloat16) for x in inputs]
    y = learned_sketch(*half, provider="native")
    right = learned_sketch(*(x.float() for x in half), provider="native")
    assert torch.equal(y, right.to(torch.bfloat16))
    with pytest.raises(ValueError, match=r"next_up has the shape \(2, 15, 3\), not \(2, 15, 4\)"):
        learned_sketch(*inputs[:3], inputs[3][..., :-1], inputs[4], provider="native")
