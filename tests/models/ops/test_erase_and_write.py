"""Erasing and writing: the chunked form against the loop, the loop against arithmetic by hand and against the delta rule."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.erase_and_write.chunked import CHUNK, chunked
from models.ops.erase_and_write.native import native
from models.ops.erase_and_write.recurrence import recurrence
from models.ops.native_build import compiler
from models.ops.scan.recurrence import recurrence as scan

BATCH, HEADS, KEYS, VALUES = 2, 3, 6, 5
GATES = {
    "mixed": lambda draw: -F.softplus(draw),
    "near 1": lambda draw: -1e-9 * draw.abs(),
    "near 0": lambda draw: -800 - 50 * draw.abs(),  # a = e^-800 is below the least float64
    "0 and 1 in turns": lambda draw: torch.where(draw > 0, torch.zeros_like(draw), torch.full_like(draw, -1000.0)),
    "closed for good": lambda draw: torch.where(draw > 0, -1e-3, -math.inf),
}
EXACT = {torch.float32: 2e-6, torch.float64: 1e-13}
ROWS = [(before, erases) for before in (False, True) for erases in (False, True)]
COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=COMPILED)]


def in_compiled_pieces(*inputs, **named):
    """The compiled form as it is for large states, which are slow in a loop of Python."""
    with mock.patch("models.ops.scan.native.LARGE", 0):
        return native(*inputs, **named)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(time: int, gates: str = "mixed", erases: bool = False, per_head: bool = False) -> dict[str, Tensor]:
    """Random inputs; keys have unit length, as wherever something is compared."""
    keys = ("q", "compare", "write", "erase")[: 4 if erases else 3]
    given = {name: F.normalize(drawn(i, BATCH, time, HEADS, KEYS), dim=-1) for i, name in enumerate(keys)}
    given["v"] = drawn(5, BATCH, time, HEADS, VALUES)
    given["log_forget"] = GATES[gates](drawn(6, BATCH, time, HEADS, *(() if per_head else (KEYS,))))
    return given | {"state": drawn(7, BATCH, HEADS, KEYS, VALUES)}


def answers(form, kind: torch.dtype, given: dict[str, Tensor], **fixed) -> dict[str, Tensor]:
    """Outputs, last states and gradients to every input; numbers are float32's."""
    inputs = {name: x.float().to(kind).requires_grad_() for name, x in given.items()}
    outputs = form(**inputs, **fixed)
    sum((x * drawn(10 + i, *x.shape).to(kind)).sum() for i, x in enumerate(outputs)).backward()
    found = dict(zip(("y", "last state"), outputs, strict=True)) | {f"d{name}": x.grad for name, x in inputs.items()}
    return {name: x.detach().double() for name, x in found.items()}


def agree(given: dict[str, Tensor], kind: torch.dtype = torch.float64, law=recurrence, form=chunked, **fixed) -> None:
    right = answers(law, torch.float64, given, **fixed)
    for name, got in answers(form, kind, given, **fixed).items():
        assert got.isfinite().all(), name
        error = ((got - right[name]).norm() / right[name].norm().clamp_min(0.1)).item()
        assert error <= EXACT[kind], f"{name}: {error:.1e}"


@pytest.mark.parametrize(("before", "erases"), ROWS)
@pytest.mark.parametrize("time", [1, 2, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 37])
@pytest.mark.parametrize("form", FORMS)
def test_chunked_is_the_law(time, before, erases, form):
    agree(tensors(time, erases=erases), form=form, before=before)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", EXACT, ids=str)
@pytest.mark.parametrize(("before", "erases"), ROWS)
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("form", FORMS)
def test_chunked_is_the_law_at_every_gate(gates, before, erases, kind, form):
    agree(tensors(3 * CHUNK + 7, gates, erases), kind, form=form, before=before)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("form", [*FORMS, pytest.param(in_compiled_pieces, marks=COMPILED)])
def test_chunked_is_the_law_where_gates_are_per_head(before, form):
    agree(tensors(CHUNK + 9, per_head=True), form=form, before=before)


@COMPILED
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("gates", GATES)
def test_compiled_pieces_are_the_law_at_every_gate_of_a_head(gates, before):
    agree(tensors(3 * CHUNK + 7, gates, per_head=True), form=in_compiled_pieces, before=before)


@pytest.mark.parametrize("form", FORMS)
def test_chunked_is_the_law_without_a_state(form):
    given = tensors(CHUNK + 9, erases=True)
    given.pop("state")
    agree(given, form=form, before=True)


@pytest.mark.parametrize("per_head", [False, True])
def test_one_key_compared_after_forgetting_is_the_delta_rule(per_head):
    """The scan's law with a rate, `compare=True`, on either shape of gates."""
    given = tensors(CHUNK + 9, per_head=per_head)
    given.pop("compare")
    given |= {"rate": drawn(8, BATCH, CHUNK + 9, HEADS).sigmoid()}

    def theirs(write, rate, **rest):
        return scan(k=write, rate=rate, compare=True, **rest)

    def ours(write, rate, **rest):
        return chunked(compare=write, write=rate[..., None] * write, **rest)

    agree(given, law=theirs, form=ours)


@pytest.mark.parametrize("cut", [1, 37, CHUNK - 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("form", FORMS)
def test_state_carries_a_text_over_any_cut(cut, form):
    given = tensors(2 * CHUNK + 37, erases=True)
    state = given.pop("state")
    whole, last = form(**given, state=state, before=True)
    pieces, kept = [], state.clone()
    for start in range(0, whole.shape[1], cut):
        piece = {name: x[:, start : start + cut] for name, x in given.items()}
        y, after = form(**piece, state=state, before=True)
        assert torch.equal(state, kept)
        state, kept = after, after.clone()
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= 1e-12 * whole.norm()
    assert (state - last).norm() <= 1e-12 * last.norm()


def test_one_key_written_again_and_again_stays_exact():
    given = tensors(3 * CHUNK, "near 1")
    for name in ("compare", "write"):
        given[name] = given["q"][:, :1].expand_as(given["q"])
    agree(given)
    agree(given, torch.float32)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_its_dtype_and_a_float32_state(form):
    given = tensors(CHUNK + 3, erases=True)
    half = {name: x.float() if name in ("log_forget", "state") else x.bfloat16() for name, x in given.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y, state = form(**half)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected = recurrence(**{name: x.double() for name, x in half.items()})
    assert (state - expected[1]).norm() <= 1e-5 * expected[1].norm()
    assert (y - expected[0]).norm() <= 1e-2 * expected[0].norm()


@pytest.mark.parametrize(("before", "last"), [(False, 3 - 0.25 * 3 + 5), (True, 3 - 0.25 * 6 + 5)])
def test_law_by_hand(before, last):
    """S: 0 -> 2 * 3 = 6; half is kept, 3; compared with 0.5 and erased with 0.5: 3 or 6 a quarter; 1 * 5 is written."""

    def row(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[None, :, None, None]

    y, state = recurrence(
        row(1, 10),
        row(1, 0.5),
        row(2, 1),
        row(3, 5),
        log_forget=row(0, math.log(0.5)),
        erase=row(1, 0.5),
        before=before,
    )
    assert y.flatten().tolist() == pytest.approx([6, 10 * last])
    assert state.item() == pytest.approx(last)


@pytest.mark.parametrize("form", [recurrence, *FORMS])
def test_rate_of_two_turns_a_key_round_and_twice_restores_the_state(form):
    """The transition I - 2 k k^T has the eigenvalue -1: parity over signs is one step of the rule."""
    key = F.normalize(drawn(1, 1, 1, 1, KEYS), dim=-1).expand(1, 2, 1, KEYS)
    state, nothing = drawn(2, 1, 1, KEYS, VALUES), torch.zeros(1, 2, 1, VALUES, dtype=torch.float64)
    gates = torch.zeros(1, 2, 1, dtype=torch.float64)
    y, after = form(key, key, 2 * key, nothing, log_forget=gates, state=state)
    known = torch.einsum("bhkv,bhk->bhv", state, key[:, 0])
    torch.testing.assert_close(y[:, 0], -known)
    torch.testing.assert_close(y[:, 1], known)
    torch.testing.assert_close(after, state)
