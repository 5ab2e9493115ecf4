"""The diagonal recurrence: its loop by hand, the streams against the loop, at every gate, length, cut and dtype."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.chunked import chunked, streams
from models.ops.diagonal_scan.native import native
from models.ops.diagonal_scan.recurrence import recurrence
from models.ops.native_build import compiler

NUMBERS = 3
KINDS = {"real": torch.float64, "complex": torch.complex128}
FORMS = [chunked, pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))]
GATES = (0.0, 1e-300, 1e-30, 1e-3, 0.5, 1 - 1e-7, 1.0)


def gates(kind: torch.dtype, shape: tuple[int, ...], values: tuple[float, ...] = GATES) -> Tensor:
    """Each place one of the values, of complex gates turned by any angle."""
    a = torch.tensor(values, dtype=torch.float64)[torch.randint(len(values), shape)].to(kind)
    return a * torch.exp(6j * torch.rand(shape, dtype=torch.float64)) if kind.is_complex else a


def inputs(kind: torch.dtype, time: int, constant: bool, values: tuple[float, ...] = GATES) -> dict[str, Tensor]:
    torch.manual_seed(time)
    a = gates(kind, (NUMBERS,) if constant else (2, time, NUMBERS), values)
    pairs = (2,) if kind.is_complex else ()
    return {
        "a": a,
        "x": torch.randn(2, time, NUMBERS, dtype=kind),
        "state": torch.randn(2, NUMBERS, *pairs, dtype=torch.float64),
    }


def answers(form, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, last state and the gradient that a random sum of both has at every input."""
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    h, state = form(**leaves)
    draw = torch.Generator().manual_seed(5)
    pairs = (torch.view_as_real(h) if h.is_complex() else h), state
    weights = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x) for x in pairs]
    sum((x * w).sum() for x, w in zip(pairs, weights, strict=True)).backward()
    return {"h": h.detach(), "last": state.detach()} | {f"d{name}": x.grad for name, x in leaves.items()}


def agree(got: dict[str, Tensor], right: dict[str, Tensor], bound: float) -> None:
    for name, expected in right.items():
        assert got[name].shape == expected.shape and got[name].isfinite().all(), name
        error = (got[name] - expected).norm() / expected.norm().clamp_min(1e-3)
        assert error <= bound, f"{name}: {error:.1e}"


def test_law_by_hand():
    """h: 2 -> 0.5 * 2 + 3 = 4 -> 0 * 4 + 5 = 5, one token's gate being closed."""
    a, x = (torch.tensor(row, dtype=torch.float64)[None, :, None] for row in ([0.5, 0.0], [3.0, 5.0]))
    h, state = recurrence(a, x, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert h.flatten().tolist() == [4, 5] and state.item() == 5


def test_complex_law_by_hand():
    """(1 + i) turned by i is i - 1; a state goes in and comes out as pairs."""
    h, state = recurrence(torch.tensor([1j]), torch.zeros(1, 1, 1, dtype=torch.complex64), torch.ones(1, 1, 2))
    assert h.item() == -1 + 1j and state.tolist() == [[[-1, 1]]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("constant", [False, True], ids=["per token", "constant"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [1, 2, 3, 7, 16, 63, 64, 131])
def test_streams_are_the_law(form, time, kind, constant):
    given = inputs(KINDS[kind], time, constant)
    agree(answers(form, given), answers(recurrence, given), 1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS[1:])
def test_compiled_walks_take_wide_states_in_whole_blocks_and_rests(form, kind, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "NUMBERS", 44)
    for constant in (False, True):
        given = inputs(KINDS[kind], 9, constant)
        agree(answers(form, given), answers(recurrence, given), 1e-14)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", GATES)
@pytest.mark.parametrize("kind", KINDS)
def test_streams_are_the_law_where_all_gates_are_alike(form, kind, value):
    for constant in (False, True):
        given = inputs(KINDS[kind], 150, constant, (value,))
        agree(answers(form, given), answers(recurrence, given), 1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("constant", [False, True], ids=["per token", "constant"])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_exact_and_stays_float32_under_autocast(form, kind, constant):
    given = inputs(KINDS[kind], 150, constant)
    narrow = {n: x.to(torch.complex64 if x.is_complex() else torch.float32) for n, x in given.items()}
    right = answers(recurrence, {name: x.to(given[name].dtype) for name, x in narrow.items()})
    with torch.autocast("cpu", torch.bfloat16):
        got = answers(form, narrow)
    assert got["h"].dtype == narrow["x"].dtype and got["last"].dtype == torch.float32
    agree(got, right, 2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_in_float32(form):
    given = {name: x.to(torch.bfloat16) for name, x in inputs(torch.float64, 40, False).items()}
    h, state = form(**given)
    right = recurrence(**{name: x.double() for name, x in given.items()})
    assert (h.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert (state - right[1]).norm() <= 1e-6 * right[1].norm() and (h - right[0]).norm() <= 1e-2 * right[0].norm()


@pytest.mark.parametrize("provider", ["recurrence", "chunked", pytest.param("native", marks=FORMS[1].marks)])
@pytest.mark.parametrize("cut", [1, 7, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_state_carries_a_text_over_any_cut(kind, cut, provider):
    given = inputs(KINDS[kind], 150, False)
    whole, last = recurrence(**given)
    hs, state = [], given["state"]
    for start in range(0, 150, cut):
        kept = state.clone()
        piece = [given[name][:, start : start + cut] for name in ("a", "x")]
        h, after = diagonal_scan(*piece, state, provider=provider)
        assert torch.equal(state, kept) and after.untyped_storage().nbytes() == kept.untyped_storage().nbytes()
        hs, state = [*hs, h], after
    assert (torch.cat(hs, 1) - whole).norm() <= 1e-14 * whole.norm()
    assert (state - last).norm() <= 1e-14 * last.norm()


def test_empty_piece_and_no_rows_keep_state_and_shape():
    for form in (recurrence, chunked, *([native] if compiler() else [])):
        for kind in KINDS.values():
            given = inputs(kind, 0, False)
            h, state = form(**given)
            assert h.shape == (2, 0, NUMBERS) and h.dtype == kind and torch.equal(state, given["state"])
            none, _ = form(gates(kind, (0, 5, NUMBERS)), torch.randn(0, 5, NUMBERS, dtype=kind))
            assert none.shape == (0, 5, NUMBERS)


@pytest.mark.parametrize("form", FORMS)
def test_real_decay_of_a_complex_state_and_inputs_that_are_views(form):
    given = inputs(torch.complex128, 30, False)
    given["a"] = given["a"].abs()
    agree(answers(form, given), answers(recurrence, given), 1e-14)
    wide = torch.randn(2, 30, 2 * NUMBERS, dtype=torch.float64)
    a, x = wide.chunk(2, -1)
    assert (form(a.sigmoid(), x)[0] - recurrence(a.sigmoid(), x)[0]).norm() < 1e-14
    once = a[:, :1].sigmoid().expand(-1, 30, -1)
    assert (form(once, x)[0] - recurrence(once, x)[0]).norm() < 1e-14


@pytest.mark.parametrize("time", [1, 2, 100, 512, 1021, 4096])
def test_streams_take_about_the_roots_number_of_steps(time):
    count, length = streams(time)
    assert 0 <= time - count * length < length
    assert 2 * length + count + time - count * length <= 4 * time**0.5


@pytest.mark.skipif(not compiler(), reason="no C compiler is here")
@pytest.mark.parametrize("constant", [False, True], ids=["per token", "constant"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [7, 20, 100])
def test_columns_shared_out_among_threads_change_no_digit(width, kind, constant):
    kind, found, before = KINDS[kind], [], torch.get_num_threads()
    torch.manual_seed(width)
    a = gates(kind, (width,) if constant else (1, 40, width), (0.0, 0.5, 1.0))
    pairs = (2,) if kind.is_complex else ()
    given = {"a": a, "x": torch.randn(1, 40, width, dtype=kind), "state": torch.randn(1, width, *pairs).double()}
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(answers(native, given))
    finally:
        torch.set_num_threads(before)
    agree(found[0], answers(recurrence, given), 1e-14)
    assert all(torch.equal(found[0][name], more[name]) for more in found[1:] for name in more)
