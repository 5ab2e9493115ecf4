"""A liquid system: the law against products written out, its forms against the law, and all degrees against the exact one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from models.ops.convolution.chunked import CHUNK, STEPS
from models.ops.convolution.liquid_chunked import chunked
from models.ops.convolution.liquid_recurrence import recurrence
from models.ops.convolution.native import liquid as native
from models.ops.native_build import compiler

COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=COMPILED)]
BOUNDS = {chunked: 1e-9, native: 1e-12}


def drawn(time: int, degree: int, size: float = 0.9, width: int = 3, states: int = 4) -> dict[str, Tensor]:
    batch = 2
    torch.manual_seed(time)
    phase = torch.exp(1j * torch.rand(width, states, dtype=torch.float64) * 2 * math.pi)
    return {
        "x": torch.randn(batch, time, width, dtype=torch.float64),
        "forget": size * phase,
        "write": 0.3 * torch.randn(width, states, dtype=torch.complex128),
        "read": torch.randn(width, states, dtype=torch.complex128),
        "state": torch.randn(batch, degree, width, states, 2, dtype=torch.float64),
    }


def answers(form, given: dict[str, Tensor], degree: int) -> dict[str, Tensor]:
    inputs = {name: value.clone().requires_grad_() for name, value in given.items()}
    y, state = form(**inputs, degree=degree)
    draw = torch.Generator().manual_seed(1)
    loss = sum((z * torch.randn(z.shape, generator=draw, dtype=torch.float64)).sum() for z in (y, state))
    found = torch.autograd.grad(loss, list(inputs.values()))
    return {"y": y, "last state": state, **{f"d{name}": g for name, g in zip(inputs, found, strict=True)}}


def agree(form, given: dict[str, Tensor], degree: int) -> None:
    right, fast = answers(recurrence, given, degree), answers(form, given, degree)
    for name, expected in right.items():
        assert fast[name].isfinite().all(), name
        assert (fast[name] - expected).norm() <= BOUNDS[form] * expected.norm().clamp_min(1e-12), name
        assert fast[name].shape == expected.shape and fast[name].dtype == expected.dtype, name


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("time", [1, STEPS + 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_the_law(form, time, degree):
    agree(form, drawn(time, degree), degree)


@pytest.mark.parametrize("size", [1 - 1e-7, 1e-30, 0.0])
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_the_law_however_much_is_forgotten(form, size):
    agree(form, drawn(2 * CHUNK + 5, 3, size), 3)


@COMPILED
@pytest.mark.parametrize("degree", [1, 2, 6])
@pytest.mark.parametrize("width, states", [(1, 1), (8, 3), (21, 32)])
def test_channels_beyond_whole_vectors_and_odd_numbers_of_states(width, states, degree):
    agree(native, drawn(CHUNK + 6, degree, width=width, states=states), degree)


@COMPILED
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_a_token_without_a_gradient_is_the_law(degree):
    for width, states in ((3, 4), (5, 1)):
        given = drawn(1, degree, width=width, states=states)
        for found, right in zip(native(**given, degree=degree), recurrence(**given, degree=degree), strict=True):
            assert found.shape == right.shape and (found - right).norm() <= 1e-14 * right.norm()


@COMPILED
@pytest.mark.parametrize("time", [1, 5])
def test_a_state_of_other_degrees_is_refused(time):
    with pytest.raises(ValueError, match="state has the shape"):
        native(**drawn(time, 2), degree=3)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_law_is_every_product_of_inputs(degree):
    """A set of inputs whose oldest is s weighs a^(t - s - p + 1) b^p at t."""
    given, time = drawn(7, degree), 7
    given["state"] = torch.zeros_like(given["state"])
    x, a, b = given["x"][0, :, 0], given["forget"][0], given["write"][0]
    y, _ = recurrence(**given, degree=degree)
    for t in range(time):
        h = torch.zeros_like(a)
        for p in range(1, degree + 1):
            for chosen in itertools.combinations(range(t + 1), p):
                h = h + a ** (t - chosen[0] - p + 1) * b**p * x[list(chosen)].prod()
        assert y[0, t, 0].item() == pytest.approx(2 * (given["read"][0] * h).sum().real.item())


def test_all_degrees_are_the_exact_system():
    given, time = drawn(4, 4), 4
    given["state"] = torch.zeros_like(given["state"])
    x, h = given["x"], torch.zeros(2, 3, 4, dtype=torch.complex128)
    y, _ = recurrence(**given, degree=4)
    for t in range(time):
        given_now = given["write"] * x[:, t, :, None]
        h = (given["forget"] + given_now) * h + given_now
        torch.testing.assert_close(y[:, t], 2 * (given["read"] * h).sum(-1).real)


@pytest.mark.parametrize("cut", [1, STEPS + 3, CHUNK + 1])
@pytest.mark.parametrize("form", FORMS)
def test_state_carries_a_text_over_any_cut(form, cut):
    given = drawn(3 * CHUNK + 17, 2)
    x, state = given.pop("x"), given.pop("state")
    whole, last = recurrence(x, **given, degree=2, state=state)
    pieces = []
    for piece in x.split(cut, 1):
        kept = state.clone()
        y, after = form(piece, **given, degree=2, state=state)
        assert torch.equal(state, kept)
        state = after
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= BOUNDS[form] * whole.norm()
    assert (state - last).norm() <= BOUNDS[form] * last.norm()
    none, after = form(x[:, :0], **given, degree=2, state=state)
    assert none.shape == (2, 0, 3) and torch.equal(after, state)
    assert form(x[:0], **given, degree=2)[0].shape == (0, 3 * CHUNK + 17, 3)


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("form", FORMS)
def test_float32_and_half_precision(form, degree):
    given = drawn(5 * CHUNK + 3, degree, 0.99)
    exact, _ = recurrence(**given, degree=degree)
    single = {name: x.to(torch.complex64 if x.is_complex() else torch.float32) for name, x in given.items()}
    y, _ = form(**single, degree=degree)
    assert (y - exact).norm() <= 1e-5 * exact.norm()
    with torch.autocast("cpu", torch.bfloat16):
        half, state = form(**(single | {"x": single["x"].bfloat16()}), degree=degree)
    assert (half.dtype, state.dtype) == (torch.bfloat16, torch.float32)
