"""Gates that are closed, wide open, and all between, mixed in one text: the fast forms are as exact as the reference recurrence.

Cumulated log-forgetting would lose its digits behind a closed gate: 5e-6 at -100, 7e-3 at -1e5, no number at -inf.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.ops.native_build import compiler
from models.ops.neural_memory import chunked_deep as deep_form
from models.ops.neural_memory import chunked_linear as linear_form
from models.ops.neural_memory import recurrence as neural_memory
from models.ops.neural_memory.native import native as native_memory
from models.ops.neural_memory.recurrence import Rule
from models.ops.scan.chunked import chunked
from models.ops.scan.native import native
from models.ops.scan.recurrence import recurrence
from models.ops.selective_scan.chunked import streamed
from models.ops.selective_scan.native import native as native_selective
from models.ops.selective_scan.recurrence import selective

LOGARITHMS = (-0.0, -1e-3, -1.0, -30.0, -100.0, -1e5, -math.inf)
EXACT = {torch.float32: 2e-6, torch.float64: 1e-13}  # of the norm; the loop itself in float32: 1e-7 to 4e-7
TIME = 150
COMPILED = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
FORMS = [chunked, pytest.param(native, marks=COMPILED)]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed(values: tuple[float, ...], *shape: int) -> Tensor:
    """Each place one of the values, at random."""
    chosen = torch.randint(len(values), shape, generator=torch.Generator().manual_seed(9))
    return torch.tensor(values, dtype=torch.float64)[chosen]


def answers(form, kind: torch.dtype, given: dict[str, Tensor], **fixed) -> dict[str, Tensor]:
    """Outputs, last states and gradients, in float64; gates are given in float32's numbers."""
    inputs = {name: x.float().to(kind).requires_grad_() for name, x in given.items()}
    y, state = form(**inputs, **fixed)
    last = state if isinstance(state, Tensor) else torch.cat([x.flatten(1) for x in state[0]], 1)
    weights = [drawn(i, *x.shape).to(kind) for i, x in enumerate((y, last))]
    ((y * weights[0]).sum() + (last * weights[1]).sum()).backward()
    found = {"y": y, "last state": last, **{f"d{name}": x.grad for name, x in inputs.items()}}
    return {name: x.detach().double() for name, x in found.items()}


def exact(law, form, kind: torch.dtype, given: dict[str, Tensor], **fixed) -> None:
    right = answers(law, torch.float64, given, **fixed)
    for name, got in answers(form, kind, given, **fixed).items():
        assert got.isfinite().all(), name
        error = ((got - right[name]).norm() / right[name].norm().clamp_min(0.1)).item()
        assert error <= EXACT[kind], f"{name}: {error:.1e}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", EXACT, ids=str)
@pytest.mark.parametrize("gates", [LOGARITHMS, *((-1e-3, value) for value in LOGARITHMS[3:])], ids=str)
@pytest.mark.parametrize("law", ["hebb", "one key for all heads", "delta rule", "per key channel"])
@pytest.mark.parametrize("form", FORMS)
def test_scan_is_exact_at_every_gate(law, gates, kind, form):
    heads, shared = 3, 1 if law == "one key for all heads" else 3
    q, k = drawn(1, 2, TIME, shared, 6), drawn(2, 2, TIME, shared, 6)
    per = (6,) if law == "per key channel" else ()
    given = {"q": q, "k": k / k.norm(dim=-1, keepdim=True), "v": drawn(3, 2, TIME, heads, 5)}
    given |= {"log_forget": mixed(gates, 2, TIME, heads, *per), "rate": drawn(4, 2, TIME, heads).sigmoid()}
    given["state"] = drawn(5, 2, heads, 6, 5)
    exact(recurrence, form, kind, given, compare=law == "delta rule")


@pytest.mark.parametrize("width", [1, 2, 5, 33, 63, 64, 65])
@pytest.mark.parametrize("form", FORMS)
def test_scan_is_exact_in_texts_of_any_length(width, form):
    given = {name: drawn(i, 1, width, 2, 4) for i, name in enumerate("qkv")}
    for per in ((), (4,)):
        gates = mixed(LOGARITHMS, 1, width, 2, *per)
        exact(recurrence, form, torch.float32, {**given, "log_forget": gates, "state": drawn(7, 1, 2, 4, 4)})


@pytest.mark.parametrize("form", FORMS)
def test_fixed_gate_that_is_closed_is_exact(form):
    gates = torch.tensor([-1e-3, -1e5, -math.inf], dtype=torch.float64)
    given = {name: drawn(i, 2, TIME, 3, 4) for i, name in enumerate("qkv")}
    right_ones, got_ones = (
        one(**{n: x.to(kind) for n, x in given.items()}, log_forget=gates.to(kind).expand(2, TIME, -1))
        for one, kind in ((recurrence, torch.float64), (form, torch.float32))
    )
    for right, got in zip(right_ones, got_ones, strict=True):
        assert (got - right).norm() <= 2e-6 * right.norm()


@pytest.mark.parametrize("kind", EXACT, ids=str)
@pytest.mark.parametrize("form", [streamed, pytest.param(native_selective, marks=COMPILED)])
def test_selective_scan_is_exact_at_every_gate(kind, form):
    delta = mixed((1e-6, 1e-3, 1.0, 30.0, 100.0, 1e5), 2, TIME, 8)
    x = drawn(1, 2, TIME, 8) / delta  # so that what is written stays of one size
    given = {"x": x, "delta": delta, "A": -drawn(2, 8, 4).exp(), "B": drawn(3, 2, TIME, 4), "C": drawn(4, 2, TIME, 4)}
    exact(selective, form, kind, {**given, "state": drawn(5, 2, 8, 4)})


@pytest.mark.parametrize("kind", EXACT, ids=str)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("form", [None, pytest.param(native_memory, marks=COMPILED)], ids=["chunked", "native"])
def test_neural_memory_is_exact_at_every_gate(form, depth, kind):
    gates = tuple(math.exp(value) for value in LOGARITHMS)
    form = form or (linear_form.chunked if depth == 1 else deep_form.chunked)
    k = drawn(2, 2, TIME, 3, 4)
    given = {"q": drawn(1, 2, TIME, 3, 4), "k": k / k.norm(dim=-1, keepdim=True), "v": drawn(3, 2, TIME, 3, 4)}
    given |= {"momentum": 0.97 * mixed(gates[::-1], 2, TIME, 3), "keep": mixed(gates, 2, TIME, 3)}
    given["rate"] = 0.1 * mixed(gates, 3, TIME, 2).transpose(0, 2) * (1 - given["momentum"])
    initial = tuple(0.5 * drawn(6 + layer, 3, 4, 4) for layer in range(depth))

    def of(one):
        def called(**inputs):
            own = tuple(x.to(inputs["q"].dtype) for x in initial)
            return one(**inputs, initial=own, rule=Rule(16))

        return called

    exact(of(neural_memory.recurrence), of(form), kind, given)
