"""The recurrence against its fast forms in float64, forward and backward, and against arithmetic by hand."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.providers import operations, watch
from models.ops.scan.chunked import CHANNEL_CHUNK, CHUNK, NARROW, chunked
from models.ops.scan.native import native
from models.ops.scan.recurrence import ROWS, recurrence
from models.ops.selective_scan.chunked import STEPS, streamed
from models.ops.selective_scan.native import native as native_selective
from models.ops.selective_scan.recurrence import selective
from models.ops.triangular import unit_lower_inverse

BOUND = 1e-9
GATES = {
    "mixed": lambda draw: -torch.nn.functional.softplus(draw),
    "near 1": lambda draw: -1e-9 * draw.abs(),
    "near 0": lambda draw: -800 - 50 * draw.abs(),  # a = e^-800 is below the least float64
    "0 and 1 in turns": lambda draw: torch.where(draw > 0, torch.zeros_like(draw), torch.full_like(draw, -1000.0)),
}
GATED = [("head", False), ("head", True), ("key channel", False)]  # forgetting, and whether it compares
COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")


def in_compiled_pieces(*inputs, **named):
    """The compiled form as for large states, which are slow in a loop of Python: in pieces of a few tokens."""
    with mock.patch("models.ops.scan.native.LARGE", 0), mock.patch("models.ops.scan.native.WRITTEN", 0):
        return native(*inputs, **named)


FORMS = [chunked, pytest.param(native, marks=COMPILED), pytest.param(in_compiled_pieces, marks=COMPILED)]
SELECTIVE_FORMS = [streamed, pytest.param(native_selective, marks=COMPILED)]
LENGTHS = [1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 37]


def tensors(time: int, forget: str, gates: str, rate: bool, compare: bool, shared: bool, state: bool) -> dict:
    """Random inputs of one case; keys have unit length where they are compared, as in every delta-rule model."""
    batch, heads, key, value = 2, 3, 6, 5
    torch.manual_seed(time)
    q, k = (torch.randn(batch, time, 1 if shared else heads, key, dtype=torch.float64) for _ in range(2))
    given = {"q": q, "k": k / k.norm(dim=-1, keepdim=True) if compare else k}
    given["v"] = torch.randn(batch, time, heads, value, dtype=torch.float64)
    if forget != "none":
        shape = (batch, time, heads, key) if forget == "key channel" else (batch, time, heads)
        given["log_forget"] = GATES[gates](torch.randn(shape, dtype=torch.float64))
    if rate:
        given["rate"] = torch.rand(batch, time, heads, dtype=torch.float64)
    if state:
        given["state"] = torch.randn(batch, heads, key, value, dtype=torch.float64)
    return given


def agree(law, fast, given: dict[str, Tensor], **settings) -> None:
    """Outputs, last states and gradients to every input differ by less than the bound, relative to the recurrence's norm."""
    answers = []
    for form in (law, fast):
        inputs = {name: x.clone().requires_grad_() for name, x in given.items()}
        outputs = form(**inputs, **settings)
        weights = [
            torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=x.dtype)
            for i, x in enumerate(outputs)
        ]
        sum((x * w).sum() for x, w in zip(outputs, weights, strict=True)).backward()
        named = {"y": outputs[0], "last state": outputs[1], **{f"d{name}": x.grad for name, x in inputs.items()}}
        answers.append({name: x.detach() for name, x in named.items()})
    for name, expected in answers[0].items():
        got = answers[1][name]
        assert got.isfinite().all(), name
        scale = expected.norm().item() or 1e-4  # a gate of e^-800 is 0, and so is its gradient
        assert (got - expected).norm().item() <= BOUND * scale, name
        assert got.dtype == torch.float64, name


@pytest.mark.sampled(4)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize(("forget", "compare"), [("none", False), ("none", True), *GATED])
def test_chunked_is_the_law(time, forget, compare, form):
    agree(recurrence, form, tensors(time, forget, "mixed", True, compare, False, True), compare=compare)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize(("forget", "compare"), GATED)
def test_chunked_is_the_law_at_every_gate(forget, compare, gates, form):
    time = 2 * CHUNK + 37 if forget == "head" else 3 * CHANNEL_CHUNK + 7
    agree(recurrence, form, tensors(time, forget, gates, True, compare, False, True), compare=compare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize(("rate", "state"), [(False, False), (False, True), (True, False)])
def test_chunked_is_the_law_without_rate_or_state(rate, state, compare, form):
    agree(recurrence, form, tensors(CHUNK + 9, "head", "mixed", rate, compare, False, state), compare=compare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("time", [1, CHUNK + 1, 2 * CHUNK + 37])
@pytest.mark.parametrize("gates", GATES)
def test_chunked_is_the_law_with_one_key_head_for_all_values(gates, time, form):
    agree(recurrence, form, tensors(time, "head", gates, True, False, True, True))


@pytest.mark.parametrize("form", FORMS)
def test_keys_that_are_all_the_same_do_not_break_the_delta_rule(form):
    given = tensors(2 * CHUNK, "head", "near 1", True, True, False, True)
    given["k"] = given["k"][:, :1].expand_as(given["k"]).clone()
    given["rate"] = torch.ones_like(given["rate"])
    agree(recurrence, form, given, compare=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [1, 37, CHUNK - 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
def test_state_carries_a_text_over_any_cut(cut, compare, form):
    given = tensors(2 * CHUNK + 37, "head", "mixed", True, compare, False, True)
    state = given.pop("state")
    whole, last = form(**given, state=state, compare=compare)
    kept = state.clone()
    pieces = []
    for start in range(0, 2 * CHUNK + 37, cut):
        y, state_after = form(**{n: x[:, start : start + cut] for n, x in given.items()}, state=state, compare=compare)
        assert torch.equal(state, kept)
        state, kept = state_after, state_after.clone()
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= BOUND * whole.norm()
    assert (state - last).norm() <= BOUND * last.norm()


def test_delta_rule_per_key_channel_names_the_operation_that_has_it():
    with pytest.raises(NotImplementedError, match=r"call erase_and_write\(q, compare=k, write=rate \* k"):
        chunked(**tensors(4, "key channel", "mixed", True, True, False, False), compare=True)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_its_dtype_and_a_float32_state(form):
    given = tensors(CHUNK + 3, "head", "mixed", True, True, False, False)
    half = {name: x.to(torch.float32 if name == "log_forget" else torch.bfloat16) for name, x in given.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y, state = form(**half, compare=True)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected = recurrence(**{name: x.double() for name, x in half.items()}, compare=True)
    assert (state - expected[1]).norm() <= 1e-5 * expected[1].norm()
    assert (y - expected[0]).norm() <= 1e-2 * expected[0].norm()


def scalars(*values: float) -> Tensor:
    """A text [1, t, 1, 1] of one head and one channel."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]


def test_law_by_hand_hebb():
    """S: 0 -> 2*3 = 6 -> 6/2 + 1*5 = 8; y = S q."""
    log_forget = torch.tensor([0.0, math.log(0.5)], dtype=torch.float64)[None, :, None]
    y, state = recurrence(scalars(1, 10), scalars(2, 1), scalars(3, 5), log_forget=log_forget)
    assert y.flatten().tolist() == pytest.approx([6, 80])
    assert state.item() == pytest.approx(8)


def test_law_by_hand_delta():
    """Forget comes before compare. S: 0 -> 6 -> a S = 3, e = 5 - 3 = 2, S = 3 + 0.5 * 2 = 4."""
    log_forget = torch.tensor([0.0, math.log(0.5)], dtype=torch.float64)[None, :, None]
    rate = torch.tensor([1.0, 0.5], dtype=torch.float64)[None, :, None]
    given = (scalars(1, 10), scalars(2, 1), scalars(3, 5))
    y, state = recurrence(*given, log_forget=log_forget, rate=rate, compare=True)
    assert y.flatten().tolist() == pytest.approx([6, 40])
    assert state.item() == pytest.approx(4)


def test_delta_rule_recalls_what_it_wrote_last_under_a_key():
    """With orthonormal keys and rate 1 a second write replaces the first; Hebb adds them up."""
    keys = torch.eye(4, dtype=torch.float64)[[0, 1, 0, 0]][None, :, None]
    values = torch.randn(1, 4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    delta, _ = recurrence(keys, keys, values, compare=True)
    hebb, _ = recurrence(keys, keys, values)
    assert torch.allclose(delta[0, 3, 0], values[0, 3, 0])
    assert torch.allclose(hebb[0, 3, 0], values[0, 0, 0] + values[0, 2, 0] + values[0, 3, 0])


def selective_inputs(time: int, delta: float, state: bool) -> dict[str, Tensor]:
    batch, width, numbers = 2, 3, 4
    torch.manual_seed(time)
    given = {
        "x": torch.randn(batch, time, width),
        "delta": delta * torch.rand(batch, time, width),
        "A": -torch.arange(1, numbers + 1).repeat(width, 1).float(),
        "B": torch.randn(batch, time, numbers),
        "C": torch.randn(batch, time, numbers),
    }
    if state:
        given["state"] = torch.randn(batch, width, numbers)
    return {name: x.double() for name, x in given.items()}


@pytest.mark.parametrize("form", SELECTIVE_FORMS)
@pytest.mark.parametrize("state", [False, True], ids=["from zero", "carried"])
@pytest.mark.parametrize("delta", [1e-9, 0.5, 400.0], ids=["decay near 1", "decay mixed", "decay near 0"])
@pytest.mark.parametrize("time", [1, 5, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 37])
def test_streamed_selective_scan_is_the_law(time, delta, state, form):
    agree(selective, form, selective_inputs(time, delta, state))


@pytest.mark.parametrize("form", SELECTIVE_FORMS)
@pytest.mark.parametrize("cut", [1, 37, STEPS + 1])
def test_selective_state_carries_a_text_over_any_cut(cut, form):
    given = selective_inputs(2 * STEPS + 37, 0.5, True)
    state, A = given.pop("state"), given.pop("A")
    whole, last = form(**given, A=A, state=state)
    pieces = []
    for start in range(0, whole.shape[1], cut):
        y, state = form(**{name: x[:, start : start + cut] for name, x in given.items()}, A=A, state=state)
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= BOUND * whole.norm()
    assert (state - last).norm() <= BOUND * last.norm()


def test_selective_law_by_hand():
    """h_1 = 2 * 3 * 5 = 30; h_2 = e^{-1 * 1} 30 + 1 * 1 * 2; y = C h."""
    x, delta = (torch.tensor(values, dtype=torch.float64)[None, :, None] for values in ([5.0, 2.0], [2.0, 1.0]))
    B, C = (torch.tensor(values, dtype=torch.float64)[None, :, None] for values in ([3.0, 1.0], [1.0, 10.0]))
    y, state = selective(x, delta, torch.tensor([[-1.0]], dtype=torch.float64), B, C)
    assert y.flatten().tolist() == pytest.approx([30, 10 * (30 / math.e + 2)])
    assert state.item() == pytest.approx(30 / math.e + 2)


def test_table_has_a_row_of_every_generation():
    assert {row.forget for row in ROWS.values()} == {"none", "fixed", "from the input"}
    assert [name for name, row in ROWS.items() if row.compare] == ["deltanet", "gated-deltanet"]


@pytest.mark.parametrize("operation", operations())
def test_every_operation_has_a_law_and_a_chunked_form(operation):
    for provider in ("recurrence", operations()[operation].automatic or "chunked"):
        with watch() as names:
            assert callable(operations()[operation].form(provider))
        assert names == {provider}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True])
def test_wide_keys_take_whole_chunks_and_are_the_law(compare, form):
    given = tensors(CHUNK + 9, "head", "mixed", True, compare, False, True)
    wide = {name: torch.randn(*given[name].shape[:3], NARROW + 1, dtype=torch.float64) for name in ("q", "k")}
    wide["k"] = wide["k"] / wide["k"].norm(dim=-1, keepdim=True)
    wide["state"] = torch.randn(2, 3, NARROW + 1, 5, dtype=torch.float64)
    agree(recurrence, form, given | wide, compare=compare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True])
@pytest.mark.parametrize("time", [5, 2 * CHUNK + 37])
def test_forgetting_that_is_fixed_for_all_tokens_is_the_law(time, compare, form):
    given = tensors(time, "none", "mixed", True, compare, False, True)
    log_forget = torch.tensor([-0.3, -0.01, -2.0], dtype=torch.float64, requires_grad=True)

    def fixed(one):
        return lambda **inputs: one(**inputs, log_forget=log_forget.expand(2, time, -1), compare=compare)

    agree(fixed(recurrence), fixed(form), given)
    slopes = [torch.autograd.grad(fixed(one)(**given)[0].sum(), log_forget)[0] for one in (recurrence, form)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 5, 16, 17, 32, 40, 64])
def test_unit_lower_inverse_reads_only_below_the_diagonal(size):
    torch.manual_seed(size)
    x = torch.randn(3, size, size, dtype=torch.float64) / 4
    whole = x.tril(-1) + torch.eye(size, dtype=torch.float64)
    product = whole @ unit_lower_inverse(x)
    torch.testing.assert_close(product, torch.eye(size, dtype=torch.float64).expand(3, -1, -1), rtol=0, atol=1e-6)


def test_one_key_written_again_and_again_stays_exact_in_float32():
    inverse = unit_lower_inverse(torch.ones(1, 64, 64))[0]
    assert torch.equal(inverse, torch.eye(64) - torch.eye(64)[1:].new_ones(63).diag(-1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("forget", "compare"), GATED)
def test_gradients_in_float32_are_those_of_the_law(forget, compare, form):
    given = tensors(150, forget, "mixed", True, compare, False, True)
    answers = []
    for one, kind in ((recurrence, torch.float64), (form, torch.float32)):
        inputs = {name: x.to(kind).requires_grad_() for name, x in given.items()}
        y, _ = one(**inputs, compare=compare)
        answers.append(torch.autograd.grad(y.square().sum(), list(inputs.values())))
    for exact, got in zip(*answers, strict=True):
        assert (got - exact).norm() < 1e-5 * exact.norm()
