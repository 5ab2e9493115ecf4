"""Log-linear attention: the law as a weighted matrix, its chunks against the law, and any cut of a text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.ops.log_linear.chunked import CHUNK, chunked
from models.ops.log_linear.native import native
from models.ops.log_linear.recurrence import recurrence
from models.ops.native_build import compiler

BOUND = 1e-9
FORMS = [chunked, pytest.param(native, marks=pytest.mark.skipif(not compiler(), reason="no C compiler is here"))]
GATES = {"mixed": (-3.0, 0.0), "near 1": (-1e-9, 0.0), "near 0": (-900.0, -800.0), "in turns": (-1000.0, 0.0)}


def drawn(
    time: int, compare: bool, levels: int = 12, gates: str = "mixed", keys: int = 5, values: int = 3
) -> dict[str, Tensor]:
    batch, heads = 2, 2
    torch.manual_seed(time)
    low, high = GATES[gates]
    share = torch.rand(batch, time, heads, dtype=torch.float64)
    given = {name: torch.randn(batch, time, heads, keys, dtype=torch.float64) for name in ("q", "k")}
    if compare:
        given["k"] = torch.nn.functional.normalize(given["k"], dim=-1)
    return given | {
        "v": torch.randn(batch, time, heads, values, dtype=torch.float64),
        "weights": torch.rand(batch, time, heads, levels, dtype=torch.float64),
        "log_forget": low + (high - low) * (share.round() if gates == "in turns" else share),
        "rate": torch.rand(batch, time, heads, dtype=torch.float64),
    }


def answers(form, given: dict[str, Tensor], compare: bool, begun: tuple | None = None) -> dict[str, Tensor]:
    inputs = {name: value.clone().requires_grad_() for name, value in given.items()}
    state = None
    if begun is not None:
        inputs["state"] = begun[0].clone().requires_grad_()
        state = inputs["state"], begun[1]
    own = {name: value for name, value in inputs.items() if name != "state"}
    y, (buckets, count) = form(**own, compare=compare, state=state)
    assert count == given["q"].shape[1] + (0 if begun is None else begun[1])
    draw = torch.Generator().manual_seed(1)
    loss = sum((z * torch.randn(z.shape, generator=draw, dtype=torch.float64).to(z)).sum() for z in (y, buckets))
    found = list(torch.autograd.grad(loss, list(inputs.values())))
    if begun is not None:
        found[-1] = found[-1] * (begun[0] != 0)  # the chunks do not read a bucket that is empty
    return {"y": y, "buckets": buckets, **{f"d{name}": g for name, g in zip(inputs, found, strict=True)}}


def agree(form, given: dict[str, Tensor], compare: bool, begun: tuple | None = None) -> None:
    right, fast = answers(recurrence, given, compare, begun), answers(form, given, compare, begun)
    for name, expected in right.items():
        assert fast[name].isfinite().all(), name
        assert (fast[name] - expected).norm() <= BOUND * expected.norm().clamp_min(1e-6), name


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("time", [1, 3, CHUNK, 3 * CHUNK + 37])
def test_chunks_are_the_law(time, compare, form):
    agree(form, drawn(time, compare), compare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("gates", GATES)
def test_chunks_are_the_law_at_every_gate(gates, compare, form):
    agree(form, drawn(CHUNK + 21, compare, gates=gates), compare)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("levels", [2, 4, 8])
@pytest.mark.parametrize("before", [5, 2 * CHUNK])
def test_chunks_are_the_law_from_a_state_and_with_few_levels(levels, before, compare, form):
    _, begun = recurrence(**drawn(before, compare, levels), compare=compare)
    agree(form, drawn(CHUNK + 70, compare, levels), compare, begun)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
def test_heads_may_share_wide_keys(compare, form):
    given = drawn(CHUNK + 21, compare, keys=20, values=37)
    agree(form, given | {name: given[name][:, :, :1] for name in ("q", "k")}, compare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
def test_float32_is_exact_and_a_rate_may_be_left_out(compare, form):
    given = {name: x.float() for name, x in drawn(2 * CHUNK + 5, compare).items() if name != "rate"}
    if compare:
        given["k"] = given["k"] / 2  # whoever erases the whole of a key and writes it again is not told from noise
    right = answers(recurrence, {name: x.double() for name, x in given.items()}, compare)
    for name, fast in answers(form, given, compare).items():
        assert fast.dtype == torch.float32
        assert (fast - right[name]).norm() <= 3e-6 * right[name].norm(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [1, 7, CHUNK + 1])
def test_state_carries_a_text_over_any_cut(cut, form):
    given = drawn(3 * CHUNK + 37, True)
    whole, last = form(**given, compare=True)
    state, pieces = None, []
    for start in range(0, whole.shape[1], cut):
        kept = None if state is None else state[0].clone()
        y, after = form(**{n: x[:, start : start + cut] for n, x in given.items()}, compare=True, state=state)
        assert state is None or torch.equal(state[0], kept)
        state = after
        pieces.append(y)
    assert (torch.cat(pieces, 1) - whole).norm() <= BOUND * whole.norm()
    assert (state[0] - last[0]).norm() <= BOUND * last[0].norm() and state[1] == last[1]


def test_law_is_attention_weighted_by_level():
    """Token s is read by t with the weight of as many digits as t xor s has, times what was not forgotten between."""
    given, time = drawn(21, False), 21
    y, _ = recurrence(**given)
    for t in range(time):
        expected = torch.zeros(2, 2, 3, dtype=torch.float64)
        for s in range(t + 1):
            share = given["weights"][:, t, :, (t ^ s).bit_length()] * given["log_forget"][:, s + 1 : t + 1].sum(1).exp()
            share = share * given["rate"][:, s] * (given["q"][:, t] * given["k"][:, s]).sum(-1)
            expected = expected + share[..., None] * given["v"][:, s]
        torch.testing.assert_close(y[:, t], expected)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_its_dtype_and_a_float32_state(form):
    given = drawn(CHUNK + 9, True)
    half = {name: x.to(torch.float32 if name == "log_forget" else torch.bfloat16) for name, x in given.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y, state = form(**half, compare=True)
    assert y.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in tree_leaves(state) if isinstance(leaf, Tensor)} == {torch.float32}
    exact, _ = recurrence(**{name: x.double() for name, x in half.items()}, compare=True)
    assert (y - exact).norm() <= 1e-2 * exact.norm()
