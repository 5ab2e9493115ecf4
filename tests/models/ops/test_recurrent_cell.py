"""Recurrent cells: the laws by hand and against torch's own, the fast forms against the laws, forward and backward."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.providers import NotCovered
from models.ops.recurrent_cell.cells import CELLS
from models.ops.recurrent_cell.chunked import chunked
from models.ops.recurrent_cell.initial import chrono_bias
from models.ops.recurrent_cell.native import NUMBERS, native
from models.ops.recurrent_cell.recurrence import recurrence

UNITS, INPUTS, BATCH = 6, 5, 3
COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
IN_C = [("lstm", False), ("gru", False), ("gru", True), ("janet", False), ("slstm", False)]
FORMS = [(cell, option) for cell in CELLS for option in (False, True) if not option or cell in ("lstm", "gru")]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(cell: str, time: int, heads: int = 1, option: bool = True, scale: float = 1.0) -> dict[str, Tensor]:
    """Inputs of one case; `scale` multiplies the text, so that gates close and open."""
    gates, units = len(CELLS[cell].gates), UNITS // heads
    found = {
        "x": scale * drawn(1, BATCH, time, INPUTS),
        "weight": drawn(2, gates * UNITS, INPUTS),
        "recurrent": drawn(3, heads, gates * units, units) / units**0.5,
        "bias": drawn(4, gates * UNITS),
    }
    if option and cell == "lstm":
        found["peephole"] = drawn(5, 3, UNITS)
    if option and cell == "gru":
        found["candidate_bias"] = drawn(6, UNITS)
    found["state"] = drawn(7, BATCH, len(CELLS[cell].states), UNITS)
    if cell == "slstm":
        found["state"][:, 2].abs_().add_(1)  # the normaliser, which begins at 1
    return found


def answers(form, inputs: dict[str, Tensor], cell: str, kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Outputs, last state and gradients of a random sum of both."""
    leaves = {name: x.to(kind, copy=True).requires_grad_() for name, x in inputs.items()}
    y, last = form(**{"weight": None, **leaves}, cell=cell)
    ((y * drawn(8, *y.shape).to(kind)).sum() + (last * drawn(9, *last.shape).to(kind)).sum()).backward()
    found = {"y": y, "last state": last, **{f"d{name}": x.grad for name, x in leaves.items()}}
    assert all(x.dtype == kind for x in found.values())
    return {name: x.detach().double() for name, x in found.items()}


def agree(
    inputs: dict[str, Tensor], cell: str, kind: torch.dtype = torch.float64, bound: float = 1e-12, form=chunked
) -> None:
    right = answers(recurrence, inputs, cell)
    for name, got in answers(form, inputs, cell, kind).items():
        assert got.isfinite().all(), name
        assert (got - right[name]).norm() <= bound * right[name].norm().clamp_min(1e-3), name


@pytest.mark.parametrize("time", [1, 2, 37])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("cell", "option"), FORMS)
def test_fast_form_is_the_law(cell, option, heads, time):
    agree(given(cell, time, heads, option), cell)


@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize(("cell", "option"), FORMS)
def test_fast_form_is_the_law_at_closed_and_open_gates(cell, option, scale):
    agree(given(cell, 23, option=option, scale=scale), cell)


@pytest.mark.parametrize(("cell", "option"), FORMS)
def test_fast_form_in_float32_is_the_law_to_its_digits(cell, option):
    agree(given(cell, 37, option=option), cell, torch.float32, 1e-5)


@pytest.mark.sampled(4)
@COMPILED
@pytest.mark.parametrize("time", [1, 2, 37])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("cell", "option"), IN_C)
def test_compiled_form_is_the_law(cell, option, heads, time):
    agree(given(cell, time, heads, option), cell, form=native)
    agree(given(cell, time, heads, option), cell, torch.float32, 1e-5, native)


@pytest.mark.sampled(3)
@COMPILED
@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize(("cell", "option"), IN_C)
def test_compiled_form_is_the_law_at_closed_and_open_gates(cell, option, scale):
    agree(given(cell, 23, option=option, scale=scale), cell, form=native)
    agree(given(cell, 23, option=option, scale=scale), cell, torch.float32, 1e-4, native)


@COMPILED
@pytest.mark.parametrize("rows", [1, 2, 5, 7])
def test_compiled_rows_go_together_in_any_number(rows, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "BATCH", rows)
    monkeypatch.setattr(sys.modules[__name__], "UNITS", 32)
    agree(given("gru", 5, heads=2), "gru", torch.float32, 1e-5, native)


@COMPILED
def test_compiled_form_says_what_it_does_not_cover():
    for cell, option in (("lstm", True), ("gru-reset-before", False)):
        with pytest.raises(NotCovered, match="use provider chunked"):
            native(**given(cell, 2, option=option), cell=cell)


@pytest.mark.parametrize("cell", CELLS)
def test_sums_may_be_given_in_place_of_a_text(cell):
    inputs = given(cell, 9, heads=2)
    sums = {**inputs, "x": inputs["x"] @ inputs["weight"].T}
    del sums["weight"]
    agree(sums, cell)
    if cell in NUMBERS and compiler() and "peephole" not in sums:
        agree(sums, cell, form=native)
    assert torch.allclose(chunked(**{"weight": None, **sums}, cell=cell)[0], chunked(**inputs, cell=cell)[0])


@pytest.mark.parametrize("form", [recurrence, chunked, pytest.param(native, marks=COMPILED)])
@pytest.mark.parametrize("cell", CELLS)
def test_state_carries_a_text_over_any_cut(cell, form):
    if form is native and cell not in NUMBERS:
        pytest.skip("no compiled form")
    inputs = given(cell, 11, option=form is not native)
    del inputs["state"]
    text = inputs.pop("x")
    whole, last = form(text, **inputs, cell=cell)
    for size in (1, 4):
        state, ys = None, []
        for piece in (*text.split(size, 1), text[:, :0]):
            kept = None if state is None else state.clone()
            y, after = form(piece, **inputs, cell=cell, state=state)
            assert kept is None or torch.equal(state, kept)
            state, ys = after, [*ys, y]
        assert torch.allclose(torch.cat(ys, 1), whole, atol=1e-12) and torch.allclose(state, last, atol=1e-12)


def test_lstm_and_gru_are_torchs():
    """Which have a second bias."""
    for cell, own in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
        inputs = given(cell, 19, option=cell == "gru")
        theirs = own(INPUTS, UNITS, batch_first=True, dtype=torch.float64)
        second = torch.zeros_like(inputs["bias"])
        second[-UNITS:] = inputs.get("candidate_bias", 0.0)
        found = (inputs["weight"], inputs["recurrent"][0], inputs["bias"], second)
        with torch.no_grad():
            for parameter, value in zip(theirs.parameters(), found, strict=True):
                parameter.copy_(value)
        state = tuple(part[None].contiguous() for part in inputs["state"].unbind(1))
        right, _ = theirs(inputs["x"], state if cell == "lstm" else state[0])
        torch.testing.assert_close(recurrence(**inputs, cell=cell)[0], right)


def scalar(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_laws_by_hand():
    """One unit, one token, all sums given; the recurrent weights are 1."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def run(cell: str, sums: list[float], state: list[float], **more) -> list[float]:
        recurrent = torch.ones(1, len(sums), 1, dtype=torch.float64)
        return (
            recurrence(
                scalar(*sums)[None, None], None, recurrent, cell=cell, state=scalar(*state)[None, :, None], **more
            )[1]
            .flatten()
            .tolist()
        )

    o, i, f, z, h, c = 0.3, -0.4, 0.9, 0.7, 0.2, -1.5
    cell = sigmoid(f + h + 3 * c) * c + sigmoid(i + h + 2 * c) * math.tanh(z + h)
    out = sigmoid(o + h + 0.5 * cell) * math.tanh(cell)
    assert run("lstm", [i, f, z, o], [h, c], peephole=scalar(2, 3, 0.5)[:, None]) == pytest.approx([out, cell])
    r, u = sigmoid(o + h), sigmoid(i + h)
    behind, before = math.tanh(z + r * (h + 0.1)), math.tanh(z + r * h)
    assert run("gru", [o, i, z], [h], candidate_bias=scalar(0.1)) == pytest.approx([u * h + (1 - u) * behind])
    assert run("gru-reset-before", [o, i, z], [h]) == pytest.approx([u * h + (1 - u) * before])
    new = sigmoid(f + h) * h + (1 - sigmoid(f + h - 1)) * math.tanh(z + h)
    assert run("janet", [f, z], [h]) == pytest.approx([new])
    n, m = 1.7, 0.6
    C, N = (x * math.exp(m) * sigmoid(f + h) + math.exp(i + h) * y for x, y in ((c, math.tanh(z + h)), (n, 1)))
    y, c, n, m = run("slstm", [i, f, z, o], [h, c, n, m])
    assert [y, c * math.exp(m), n * math.exp(m)] == pytest.approx([sigmoid(o + h) * C / N, C, N])
    assert m == pytest.approx(max(i + h, math.log(sigmoid(f + h)) + 0.6))


def test_slstm_of_huge_input_gates_stays_finite():
    inputs = given("slstm", 15)
    del inputs["state"]
    inputs["bias"] = inputs["bias"] + 500 * drawn(10, 4 * UNITS)
    agree(inputs, "slstm", torch.float32, 1e-3)
    y, state = chunked(**inputs, cell="slstm")
    assert y.abs().max() <= 1 and state[:, 2].min() >= 1


def test_half_precision_keeps_a_float32_state():
    inputs = given("lstm", 9)
    exact, _ = chunked(**inputs, cell="lstm")
    half = {name: x.bfloat16() for name, x in inputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        for form in (recurrence, chunked):
            y, state = form(**half, cell="lstm")
            assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
            assert (y - exact).norm() <= 2e-2 * exact.norm()


@pytest.mark.parametrize("form", [recurrence, chunked])
def test_parts_that_a_cell_lacks_are_refused(form):
    inputs = given("lstm", 3)
    with pytest.raises(ValueError, match="There is no recurrent cell 'gur'"):
        form(**inputs, cell="gur")
    with pytest.raises(ValueError, match="Only the LSTM has peepholes"):
        form(**inputs, cell="slstm")
    with pytest.raises(ValueError, match="Only 'gru' has a bias inside its reset gate"):
        form(**given("gru", 3), cell="lstm")


def test_chrono_biases_cover_all_times_up_to_the_longest():
    torch.manual_seed(0)
    times = chrono_bias(4000, 101).exp()
    assert times.min() >= 1 and times.max() <= 100
    assert times.mean().item() == pytest.approx(50.5, rel=0.03)
    with pytest.raises(ValueError, match="at least 3 tokens, not 2"):
        chrono_bias(4, 2)
