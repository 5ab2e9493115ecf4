"""The ridge regression's read: the loop against the regression itself, conjugate gradients against the loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.providers import NotCovered, watch
from models.ops.ridge_read import chunked as by_steps
from models.ops.ridge_read import ridge_read
from models.ops.ridge_read.chunked import chunked, conjugate_gradients
from models.ops.ridge_read.native import native
from models.ops.ridge_read.recurrence import recurrence

KEYS, VALUES, HEADS = 5, 3, 2
needs_compiler = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=needs_compiler)]


def inputs(time: int, gates: tuple[float, ...] = (), kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """One case; H of the state is symmetric, as any that was written. `gates` mixes log-forgettings, else they are drawn."""
    draw = torch.Generator().manual_seed(time)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    found = {name: normal(2, time, HEADS, KEYS) for name in "qk"} | {"v": normal(2, time, HEADS, VALUES)}
    found["k"] = found["k"] / found["k"].norm(dim=-1, keepdim=True)
    found["log_forget"] = -torch.nn.functional.softplus(normal(2, time, HEADS))
    if gates:
        chosen = torch.randint(len(gates), (2, time, HEADS), generator=draw)
        found["log_forget"] = torch.tensor(gates, dtype=torch.float64)[chosen]
    found |= {"rate": normal(2, time, HEADS).sigmoid(), "ridge": 0.25 + normal(HEADS, KEYS).abs()}
    half = normal(2, HEADS, KEYS, KEYS)
    found |= {"H": half @ half.mT, "G": normal(2, HEADS, KEYS, VALUES)}
    return {name: x.to(kind).requires_grad_() for name, x in found.items()}


def run(law, given: dict[str, Tensor], pieces: list[int], steps: int = 30) -> dict[str, Tensor]:
    """y, the last state, and the gradients of a random sum of them, that of H in its symmetric part."""
    fixed, state, ys, start = {"ridge": given["ridge"], "steps": steps}, (given["H"], given["G"]), [], 0
    for size in pieces:
        cut = {name: given[name][:, start : start + size] for name in ("q", "k", "v", "log_forget", "rate")}
        y, state = law(**cut, **fixed, state=state)
        ys.append(y)
        start += size
    found = {"y": torch.cat(ys, 1), "H": state[0], "G": state[1]}
    draw = torch.Generator().manual_seed(1)
    ways = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x) for x in found.values()]
    ways[1] = ways[1] + ways[1].mT
    loss = sum((x * way).sum() for x, way in zip(found.values(), ways, strict=True))
    found |= {f"d{name}": g for name, g in zip(given, torch.autograd.grad(loss, list(given.values())), strict=True)}
    found["dH"] = found["dH"] + found["dH"].mT
    return {name: x.detach().double() for name, x in found.items()}


def agree(got: dict[str, Tensor], right: dict[str, Tensor], bound: float) -> None:
    for name, expected in right.items():
        assert got[name].isfinite().all(), name
        assert (got[name] - expected).norm() <= bound * expected.norm().clamp_min(1e-3), name


def test_loop_reads_the_regression_over_all_that_was_written():
    """y is q^T W, where W minimises the weighted squared errors of everything so far and its own length, by normal equations."""
    given = {name: x.detach() for name, x in inputs(9).items()}
    state = given.pop("H") * 0, given.pop("G") * 0
    y, _ = recurrence(**given, state=state)
    for t in (0, 4, 8):
        faded = given["log_forget"][0, : t + 1, 1].flip(0).cumsum(0).flip(0) - given["log_forget"][0, : t + 1, 1]
        weight = (given["rate"][0, : t + 1, 1] * faded.exp()).sqrt()[:, None]
        rows = torch.cat([weight * given["k"][0, : t + 1, 1], given["ridge"][1].sqrt().diag()])
        wanted = torch.cat([weight * given["v"][0, : t + 1, 1], torch.zeros(KEYS, VALUES, dtype=torch.float64)])
        W = torch.linalg.lstsq(rows, wanted).solution
        torch.testing.assert_close(y[0, t, 1], given["q"][0, t, 1] @ W, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pieces", [[1], [5], [32], [33], [71], [3, 1, 40, 27]], ids=str)
def test_fast_forms_are_the_law(pieces, form):
    given = inputs(sum(pieces))
    agree(run(form, given, pieces), run(recurrence, given, [sum(pieces)]), 1e-10)


@pytest.mark.parametrize("gates", [(-1e-9,), (-800.0,), (0.0, -1000.0), (-1e-3, -30.0, -math.inf)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_they_are_at_every_gate(gates, form):
    given = inputs(45, gates)
    agree(run(form, given, [45]), run(recurrence, given, [45]), 1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_in_float32(form):
    given = inputs(45)
    single = {name: x.detach().float().requires_grad_() for name, x in given.items()}
    agree(run(form, single, [45]), run(recurrence, given, [45]), 1e-5)


def test_a_row_stops_by_itself_and_none_is_kept_for_the_backward_pass(monkeypatch):
    """Where keys are one direction two steps solve all; a query of zeros takes none and gives zeros."""
    asked = []
    monkeypatch.setattr(by_steps, "_product", lambda *x, own=by_steps._product: asked.append(1) or own(*x))
    given = {name: x.detach() for name, x in inputs(40).items()}
    given |= {"k": given["k"][:1, :1].expand_as(given["k"]), "ridge": torch.ones_like(given["ridge"])}
    given["q"][:, 7] = 0
    state = given.pop("H") * 0, given.pop("G") * 0
    y, _ = chunked(**given, state=state)
    assert len(asked) <= 4 and not y[:, 7].any()
    torch.testing.assert_close(y, recurrence(**given, state=state)[0])


def test_steps_bound_the_work_and_half_precision_keeps_a_float32_state():
    given = {name: x.detach().to(torch.bfloat16) for name, x in inputs(40).items()}
    del given["H"], given["G"]
    rough, exact = (chunked(**{n: x.float() for n, x in given.items()}, steps=steps)[0] for steps in (1, 30))
    assert 1e-3 < ((rough - exact).norm() / exact.norm()).item() < 1
    y, (H, G) = chunked(**given)
    assert (y.dtype, H.dtype, G.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert ((y.float() - exact).norm() / exact.norm()).item() < 1e-2
    assert chunked(**{n: x if n == "ridge" else x[:, :0] for n, x in given.items()})[0].shape == (2, 0, HEADS, VALUES)


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_numbers():
    half = torch.randn(6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, right = half @ half.mT + 0.1 * torch.eye(4), half[..., 0]
    found = conjugate_gradients(lambda p: (matrix @ p[..., None])[..., 0], right, 5)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right), rtol=1e-8, atol=1e-8)


@needs_compiler
@pytest.mark.parametrize("keys", [5, 32])
def test_compiled_systems_are_no_further_from_the_law_than_steps_and_threads_change_no_digit(keys, monkeypatch):
    """32 keys are more than the 30 steps by default: there the exact solution is a hundred times as close."""
    time = 400
    monkeypatch.setitem(globals(), "KEYS", keys)
    given = inputs(time, (0.0, -1e-3))  # sums that hardly forget: the worst conditioned
    exact = run(recurrence, given, [time])
    single = {name: x.detach().float().requires_grad_() for name, x in given.items()}
    approached, found = run(chunked, single, [time]), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(run(native, single, [time]))
    finally:
        torch.set_num_threads(1)
    for name, right in exact.items():
        assert torch.equal(found[0][name], found[1][name])
        error, allowed = ((x[name] - right).norm() / right.norm() for x in (found[0], approached))
        assert error <= max(allowed, 5e-6), name
        assert name != "y" or keys == 5 or error < allowed / 20


@needs_compiler
def test_auto_solves_exactly_but_for_wide_systems_and_few_steps():
    given = {name: x.detach() for name, x in inputs(7).items()}
    del given["H"], given["G"]
    with watch() as ran:
        ridge_read(**given)
    assert ran == {"native"}
    with watch() as ran:
        ridge_read(**given, steps=3)
    assert ran == {"chunked"}
    with pytest.raises(NotCovered, match="3 steps"):
        ridge_read(**given, steps=3, provider="native")
    wide = torch.ones(1, 2, 1, 65)
    gates = {"log_forget": -torch.ones(1, 2, 1), "rate": torch.ones(1, 2, 1), "ridge": torch.ones(1, 65)}
    with pytest.raises(NotCovered, match="at most 64 keys"):
        ridge_read(wide, wide, wide, **gates, provider="native")
