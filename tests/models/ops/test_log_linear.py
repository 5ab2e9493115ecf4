"""Log-linear attention: the law as a weighted matrix, its chunks against the law, and any cut of a text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.ops.log_linear.chunked import CHUNK, chunked
from models.ops.log_linear.recurrence import recurrence

BOUND = 1e-9
GATES = {"mixed": (-3.0, 0.0), "near 1": (-1e-9, 0.0), "near 0": (-900.0, -800.0), "in turns": (-1000.0, 0.0)}


def drawn(time: int, compare: bool, levels: int = 12, gates: str = "mixed") -> dict[str, Tensor]:
    batch, heads, keys, values = 2, 2, 5, 3
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
    loss = sum((z * torch.randn(z.shape, generator=draw, dtype=torch.float64)).sum() for z in (y, buckets))
    found = list(torch.autograd.grad(loss, list(inputs.values())))
    if begun is not None:
        found[-1] = found[-1] * (begun[0] != 0)  # the chunks do not read a bucket that is empty
    return {"y": y, "buckets": buckets, **{f"d{name}": g for name, g in zip(inputs, found, strict=True)}}


def agree(given: dict[str, Tensor], compare: bool, begun: tuple | None = None) -> None:
    right, fast = answers(recurrence, given, compare, begun), answers(chunked, given, compare, begun)
    for name, expected in right.items():
        assert fast[name].isfinite().all(), name
        assert (fast[name] - expected).norm() <= BOUND * expected.norm().clamp_min(1e-6), name


@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("time", [1, 3, CHUNK, 3 * CHUNK + 37])
def test_chunks_are_the_law(time, compare):
    agree(drawn(time, compare), compare)


@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("gates", GATES)
def test_chunks_are_the_law_at_every_gate(gates, compare):
    agree(drawn(CHUNK + 21, compare, gates=gates), compare)


@pytest.mark.parametrize("compare", [False, True], ids=["hebb", "delta"])
@pytest.mark.parametrize("levels", [2, 4, 8])
@pytest.mark.parametrize("before", [5, 2 * CHUNK])
def test_chunks_are_the_law_from_a_state_and_with_few_levels(levels, before, compare):
    _, begun = recurrence(**drawn(before, compare, levels), compare=compare)
    agree(drawn(CHUNK + 70, compare, levels), compare, begun)


@pytest.mark.parametrize("cut", [1, 7, CHUNK + 1])
def test_state_carries_a_text_over_any_cut(cut):
    given = drawn(3 * CHUNK + 37, True)
    whole, last = chunked(**given, compare=True)
    state, pieces = None, []
    for start in range(0, whole.shape[1], cut):
        kept = None if state is None else state[0].clone()
        y, after = chunked(**{n: x[:, start : start + cut] for n, x in given.items()}, compare=True, state=state)
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


def test_half_precision_keeps_its_dtype_and_a_float32_state():
    given = drawn(CHUNK + 9, True)
    half = {name: x.to(torch.float32 if name == "log_forget" else torch.bfloat16) for name, x in given.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y, state = chunked(**half, compare=True)
    assert y.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in tree_leaves(state) if isinstance(leaf, Tensor)} == {torch.float32}
    exact, _ = recurrence(**{name: x.double() for name, x in half.items()}, compare=True)
    assert (y - exact).norm() <= 1e-2 * exact.norm()
