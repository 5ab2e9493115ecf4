"""The short convolution's fast forms against its loop: outputs, states and all gradients, any length and cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.layers import ShortConvolution, convolved, convolved_heads
from models.ops.native_build import compiler
from models.ops.providers import watch
from models.ops.short_convolution import short_convolution
from models.ops.short_convolution.chunked import chunked
from models.ops.short_convolution.native import native
from models.ops.short_convolution.recurrence import recurrence

FORMS = [chunked, pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(time: int, width: int, kernel: int, bias: bool) -> dict[str, Tensor]:
    found = {
        "x": drawn(1, 2, time, width),
        "weight": drawn(2, width, 1, kernel),
        "state": drawn(3, 2, kernel - 1, width),
    }
    return found | ({"bias": drawn(4, width)} if bias else {})


def answers(form, inputs: dict[str, Tensor], kind: torch.dtype) -> dict[str, Tensor]:
    leaves = {name: x.to(kind, copy=True).requires_grad_() for name, x in inputs.items()}
    y, last = form(**leaves)
    ((y * drawn(5, *y.shape).to(kind)).sum() + (last * drawn(6, *last.shape).to(kind)).sum()).backward()
    assert y.dtype == last.dtype == kind
    return {"y": y.detach(), "last": last.detach(), **{f"d{name}": x.grad for name, x in leaves.items()}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "kernel"), [(3, 4), (44, 4), (8, 2), (5, 1)])
@pytest.mark.parametrize("time", [1, 2, 3, 17])
def test_fast_form_is_the_law(time, width, kernel, bias, form):
    inputs = given(time, width, kernel, bias)
    right = answers(recurrence, inputs, torch.float64)
    for kind, bound in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        for name, got in answers(form, inputs, kind).items():
            assert (got - right[name]).norm() <= bound * right[name].norm(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_state_carries_a_text_over_any_cut_and_is_left_as_it_was(cut, form):
    inputs = given(17, 3, 4, True)
    whole, last = recurrence(**inputs)
    text, state, ys = inputs.pop("x"), inputs.pop("state"), []
    for piece in (*text.split(cut, 1), text[:, :0]):
        kept = state.clone()
        y, after = form(piece, **inputs, state=state)
        assert torch.equal(state, kept) and after.untyped_storage().nbytes() == kept.untyped_storage().nbytes()
        state, ys = after, [*ys, y]
    assert torch.allclose(torch.cat(ys, 1), whole) and torch.equal(state, last)


@pytest.mark.parametrize("provider", ["chunked", pytest.param("native", marks=FORMS[1].marks)])
def test_half_precision_and_autocast_keep_their_dtypes(provider):
    x, weight = torch.randn(2, 6, 4), torch.randn(4, 1, 4)
    right, _ = recurrence(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = short_convolution(x, weight, provider=provider)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    y, state = short_convolution(x.bfloat16(), weight.bfloat16(), provider=provider)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (y - right).norm() <= 2e-2 * right.norm()


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
@pytest.mark.parametrize("time", [1, 2, 9])
@pytest.mark.parametrize(("head", "bias"), [(8, True), (3, False)])
@torch.no_grad()
def test_heads_in_one_call_are_what_the_layers_make_one_after_another(kind, bound, time, head, bias):
    torch.manual_seed(time)
    layer, plain = (ShortConvolution(6 * head, bias=bias, provider=name).to(kind) for name in ("auto", "chunked"))
    plain.load_state_dict(layer.state_dict())
    x, state = torch.randn(2, time, 6 * head, dtype=kind), torch.randn(2, 3, 6 * head, dtype=kind)
    kept = state.clone()
    for unit in (0, 2):
        for given in (state, None):
            with watch() as ran:
                parts, last = convolved_heads(layer, x, given, [2 * head] * 3, 2, unit)
            assert ran == {"native"}
            right, right_last = convolved_heads(plain, x, given, [2 * head] * 3, 2, unit)
            for part, other in zip([*parts, last], [*right, right_last], strict=True):
                torch.testing.assert_close(part, other, rtol=bound, atol=bound)
    assert torch.equal(state, kept)
    y, _ = convolved(layer, x, state)
    torch.testing.assert_close(y, convolved(plain, x, state)[0], rtol=bound, atol=bound)
