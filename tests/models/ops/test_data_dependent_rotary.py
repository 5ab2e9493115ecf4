"""Data-dependent rotary positions: the fast forms against the law, any widths and lengths, with all gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.data_dependent_rotary import data_dependent_rotary
from models.ops.native_build import compiler

needs_compiler = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = ["chunked", pytest.param("native", marks=needs_compiler)]
# batch, tokens, heads, numbers of a query, pairs that turn
SHAPES = [
    (2, 70, 3, 24, 6),
    (1, 1, 2, 128, 32),
    (2, 65, 1, 7, 1),
    (1, 130, 2, 3, 0),
    (3, 5, 4, 40, 20),
    (1, 66, 2, 78, 19),
]


def given(batch: int, time: int, heads: int, width: int, pairs: int, pace: float = 1.0) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(time)
    shapes = (batch, time, width), (batch, time, width), (heads, width), (heads, width), (batch, time, pairs)
    drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    step = torch.rand(batch, time, heads, generator=draw, dtype=torch.float64)
    angle = 2 * math.pi * torch.rand(batch, heads, pairs, generator=draw, dtype=torch.float64) - math.pi
    return *drawn[:4], pace * drawn[4], step, angle


def answers(provider: str, inputs: tuple[Tensor, ...], kind: torch.dtype) -> list[Tensor]:
    """What the form returns, angles as points of the circle, and all gradients of a random sum of it."""
    leaves = [x.to(kind, copy=True).requires_grad_() for x in inputs]
    *found, angle = data_dependent_rotary(*leaves, provider=provider)
    assert {x.dtype for x in (*found, angle)} == {kind}
    draw, total = torch.Generator().manual_seed(1), (0.5 * angle).sum()
    for x in found:
        total = total + (x * torch.randn(x.shape, generator=draw, dtype=torch.float64).to(kind)).sum()
    grads = torch.autograd.grad(total, leaves)
    return [*(x.detach() for x in (*found, angle.cos(), angle.sin())), *grads]


def close(found: list[Tensor], right: list[Tensor], bound: float) -> bool:
    return all((a - b).norm() <= bound * b.norm() + 1e-3 * bound for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_form_is_the_law(shape, form):
    inputs = given(*shape)
    right = answers("recurrence", inputs, torch.float64)
    assert close(answers(form, inputs, torch.float64), right, 1e-12)
    assert close(answers(form, inputs, torch.float32), right, 2e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pace", [0.0, 1e-4, 40.0], ids=lambda pace: f"pace {pace:g}")
def test_still_slow_and_racing_angles(pace, form):
    inputs = given(2, 130, 2, 16, 4, pace)
    right = answers("recurrence", inputs, torch.float64)
    assert close(answers(form, inputs, torch.float64), right, 1e-12)
    assert close(
        answers(form, inputs, torch.float32), right, 1e-4 if pace > 1 else 2e-5
    )  # a float32 speed is off by itself


@pytest.mark.parametrize("form", ["recurrence", *FORMS])
def test_a_text_in_two_pieces_is_the_text(form):
    q, k, query_bias, key_bias, speed, step, angle = given(2, 70, 2, 16, 4)
    whole = data_dependent_rotary(q, k, query_bias, key_bias, speed, step, angle, provider=form)
    pieces = []
    for part in (slice(0, 33), slice(33, 34), slice(34, 70)):
        cut = (x[:, part] for x in (q, k)), (x[:, part] for x in (speed, step))
        *found, angle = data_dependent_rotary(*cut[0], query_bias, key_bias, *cut[1], angle, provider=form)
        pieces.append(found)
    joined = [torch.cat(parts, 1) for parts in zip(*pieces, strict=True)]
    assert close([*joined, angle.cos(), angle.sin()], [*whole[:3], whole[3].cos(), whole[3].sin()], 1e-12)


@pytest.mark.parametrize("form", ["recurrence", *FORMS])
def test_no_tokens_leave_the_angles_as_they_are(form):
    inputs = [x[:, :0] if x.dim() == 3 and x.shape[1] == 5 else x for x in given(2, 5, 3, 8, 2)]
    q, k, match, angle = data_dependent_rotary(*inputs, provider=form)
    assert (q.shape, k.shape, match.shape) == ((2, 0, 3, 8), (2, 0, 3, 8), (2, 0, 3))
    assert torch.equal(angle, inputs[-1])


@needs_compiler
def test_number_of_threads_changes_no_digit():
    inputs, before, found = given(3, 200, 2, 40, 10), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(answers("native", inputs, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@needs_compiler
def test_half_precision_is_computed_in_float32_and_wrong_shapes_are_named():
    inputs = given(1, 9, 2, 8, 2)
    half = [x.to(torch.bfloat16) for x in inputs]
    found = data_dependent_rotary(*half, provider="native")
    right = data_dependent_rotary(*(x.float() for x in half), provider="native")
    assert all(map(torch.equal, found, right))
    with pytest.raises(ValueError, match=r"key_bias has the shape \(2, 7\), not \(2, 8\)"):
        data_dependent_rotary(*inputs[:3], inputs[3][:, :-1], *inputs[4:], provider="native")
    with pytest.raises(ValueError, match="5 pairs do not fit into 8 numbers"):
        data_dependent_rotary(*given(1, 9, 2, 8, 5), provider="native")
