"""The diagonal recurrence of outer products: its loop by hand, and blocks against the loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.diagonal_scan import outer_chunked, outer_scan
from models.ops.diagonal_scan.outer_chunked import block_length, chunked
from models.ops.diagonal_scan.outer_native import native
from models.ops.diagonal_scan.recurrence import outer_recurrence
from models.ops.native_build import compiler

COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=COMPILED)]


def inputs(time: int, gate: float | None = None) -> dict[str, Tensor]:
    """Random inputs with e f in [0, 1]; with `gate` all of them that."""
    torch.manual_seed(time)
    drawn = {name: torch.randn(2, time, 5 if name in "uf" else 3, dtype=torch.float64) for name in "ufkeq"}
    drawn["f"], drawn["e"] = drawn["f"].sigmoid(), drawn["e"].sigmoid()
    drawn["f"][:, ::7], drawn["e"][:, ::7] = 1.0, 1.0
    drawn["f"][:, 3::7] = 0.0
    if gate is not None:
        drawn["f"].fill_(gate), drawn["e"].fill_(1.0)
    return drawn | {"state": torch.randn(2, 3, 5, dtype=torch.float64)}


def answers(form, given: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    y, state = form(**leaves)
    draw = torch.Generator().manual_seed(5)
    sum((x * torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x)).sum() for x in (y, state)).backward()
    return {"y": y.detach(), "last": state.detach()} | {f"d{name}": x.grad for name, x in leaves.items()}


def agree(got: dict[str, Tensor], right: dict[str, Tensor], bound: float) -> None:
    for name, expected in right.items():
        assert got[name].shape == expected.shape, name
        error = (got[name] - expected).norm() / expected.norm().clamp_min(1e-3)
        assert error <= bound, f"{name}: {error:.1e}"


def test_law_by_hand():
    """h: 2 -> (1 - 0.5 * 0.5) 2 + 3 * 4 = 13.5, read with 10."""
    u, f, k, e, q = (torch.full((1, 1, 1), value, dtype=torch.float64) for value in (3.0, 0.5, 4.0, 0.5, 10.0))
    y, state = outer_recurrence(u, f, k, e, q, torch.full((1, 1, 1), 2.0, dtype=torch.float64))
    assert (y.item(), state.item()) == (135, 13.5)


@pytest.mark.parametrize("length", [1, 8, outer_chunked.LONGEST])
@pytest.mark.parametrize("time", [1, 2, 7, 8, 9, 83])
def test_blocks_are_the_law(time, length, monkeypatch):
    monkeypatch.setattr(outer_chunked, "LONGEST", length)
    given = inputs(time)
    agree(answers(chunked, given), answers(outer_recurrence, given), 1e-13)


@COMPILED
@pytest.mark.parametrize("time", [1, 2, 15, 16, 17, 83])
def test_compiled_form_is_the_law(time):
    given = inputs(time)
    agree(answers(native, given), answers(outer_recurrence, given), 1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", [0.0, 1e-9, 1 - 1e-9, 1.0])
def test_blocks_are_the_law_at_every_gate(gate, form):
    given = inputs(60, gate)
    agree(answers(form, given), answers(outer_recurrence, given), 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_exact_and_stays_float32_under_autocast(form):
    given = {name: x.float() for name, x in inputs(83).items()}
    with torch.autocast("cpu", torch.bfloat16):
        got = answers(form, given)
    assert {x.dtype for x in got.values()} == {torch.float32}
    agree(got, answers(outer_recurrence, {name: x.double() for name, x in given.items()}), 2e-6)


@pytest.mark.parametrize("provider", ["recurrence", "chunked", pytest.param("native", marks=COMPILED)])
@pytest.mark.parametrize("cut", [1, 17, 60])
def test_state_carries_a_text_over_any_cut(cut, provider):
    given = inputs(83)
    whole, last = outer_recurrence(**given)
    ys, state = [], given.pop("state")
    for start in range(0, 83, cut):
        kept = state.clone()
        y, after = outer_scan(*(x[:, start : start + cut] for x in given.values()), state, provider=provider)
        assert torch.equal(state, kept)
        ys, state = [*ys, y], after
    assert (torch.cat(ys, 1) - whole).norm() <= 1e-13 * whole.norm()
    assert (state - last).norm() <= 1e-13 * last.norm()


def test_blocks_of_large_states_are_short():
    assert block_length(torch.empty(4, 16, 1 << 20, device="meta")) == 1
    assert block_length(torch.empty(4, 16, 512, device="meta")) == 8
    assert block_length(torch.empty(0, 16, 512, device="meta")) == outer_chunked.LONGEST
