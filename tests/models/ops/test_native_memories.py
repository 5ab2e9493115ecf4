"""Memories that learn by chunks, compiled: held to their laws in float64 and float32, in pieces, with one and two threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.associative_memory import retention_memory, window_memory
from models.ops.associative_memory.native import retention, window
from models.ops.associative_memory.retention_chunked import chunked as retention_chunked
from models.ops.associative_memory.retention_recurrence import recurrence as retention_law
from models.ops.associative_memory.retention_rule import RetentionRule
from models.ops.associative_memory.window_chunked import chunked as window_chunked
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.associative_memory.window_recurrence import recurrence as window_law
from models.ops.native_build import compiler
from models.ops.providers import NotCovered, watch
from models.ops.ttt.native import native as native_ttt
from tests.support.memories import RETENTION, WINDOW, agree, answers, memory, relative, retained, windowed

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler is here")
WIDE = {"width": 8, "hidden": 16}  # several numbers in a register, several tiles
CUTS = [1, 6, 2, 5, 9]
ORTHOGONAL = 1e-8  # Newton-Schulz brings up small singular values, and rounding with them, in every form


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "kind", [kind for kind in RETENTION if kind not in ("titans", "plain")]
)  # Yaad's without a threshold
def test_retention_is_the_law(kind: str):
    rule = RetentionRule(chunk=5, **RETENTION[kind])
    initial = memory(8, positive=rule.retention == "kl", **WIDE)
    agree(retention_law, retention.native, retained(sum(CUTS), 8), initial, rule, CUTS, within=2e-13)


@pytest.mark.slow  # each setting is compiled for itself, three seconds of it
@pytest.mark.parametrize(("kind", "settings"), [("moneta", {"norm": 3.0, "power": 2.5}), ("memora", {}), ("yaad", {})])
@pytest.mark.parametrize("chunk", [1, 32])
def test_retention_online_in_one_open_chunk_and_of_other_depths(kind: str, settings: dict, chunk: int):
    """Odd widths, which no register holds side by side."""
    rule = RetentionRule(chunk=chunk, **RETENTION[kind], **settings)
    initial = memory(positive=rule.retention == "kl", depth=3 if chunk == 1 else 1)
    agree(retention_law, retention.native, retained(7), initial, rule, [3, 4], within=2e-13)


@pytest.mark.slow
@pytest.mark.parametrize("power", [2.0, 3.0])
def test_a_loss_of_sign_and_absolute_value(power: float):
    rule = RetentionRule(chunk=4, loss="lp", power=power, sharpness=None, residual=False)
    agree(retention_law, retention.native, retained(9), memory(), rule, [9], within=2e-13)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("window_length", [1, 3, 7])
@pytest.mark.parametrize(("orthogonal", "momentum"), [one for one in WINDOW if one[0] != "token"])
def test_window_is_the_law(orthogonal: str | None, momentum: bool, window_length: int):
    rule, given = WindowRule(chunk=5, window=window_length, orthogonal=orthogonal), windowed(sum(CUTS), momentum, 13, 8)
    within = ORTHOGONAL if orthogonal else 2e-13
    agree(window_law, window.native, given, memory(13, **WIDE), rule, CUTS, within=within)


@pytest.mark.slow
@pytest.mark.parametrize(("orthogonal", "momentum"), [(None, True), ("token", True)])
def test_window_online(orthogonal: str | None, momentum: bool):
    rule = WindowRule(chunk=1, window=3, orthogonal=orthogonal, activation="silu")
    within = ORTHOGONAL if orthogonal else 2e-13
    agree(window_law, window.native, windowed(7, momentum), memory(6, depth=3), rule, [3, 4], within=within)


def float32_of(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.float() for name, x in given.items()}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["yaad", "moneta", "memora", "omeganet"])
def test_float32_and_half_precision(kind: str):
    if kind == "omeganet":
        law, form, chunks, rule = window_law, window.native, window_chunked, WindowRule(5)
        given, initial = windowed(21, False, 13, 8), memory(13, **WIDE)
    else:
        law, form, chunks = retention_law, retention.native, retention_chunked
        rule, given = RetentionRule(chunk=5, **RETENTION[kind]), retained(21, 8)
        initial = memory(8, positive=kind == "memora", **WIDE)
    right = answers(law, given, initial, [21], rule)
    single, plain = (
        answers(one, float32_of(given), tuple(w.float() for w in initial), [21], rule) for one in (form, chunks)
    )
    for name, expected in right.items():
        if expected is not None and expected.numel():
            lost = relative(plain[name].double(), expected)
            assert relative(single[name].double(), expected) < max(1e-5, 3 * lost), name
    y, state = form(**{name: x.bfloat16() for name, x in given.items()}, initial=initial, rule=rule)
    assert y.dtype == torch.bfloat16 and state[0][0].dtype == torch.float32
    assert relative(y.double(), right[0]) < 2e-2


def test_orthogonal_steps_keep_float32s_digits_where_they_go_two_at_a_time():
    """Of long matrices: all five steps from one Gram matrix would lose three digits more, which float64 does not show."""
    rule, given, initial = (
        WindowRule(8, window=3, orthogonal="chunk"),
        windowed(40, True, 33, 16),
        memory(33, hidden=16, width=16),
    )
    right = answers(window_law, given, initial, [40], rule)
    single, plain = (
        answers(one, float32_of(given), tuple(w.float() for w in initial), [40], rule)
        for one in (window.native, window_chunked)
    )
    for name, expected in right.items():
        if expected is not None and expected.numel():
            lost = relative(plain[name].double(), expected)
            assert relative(single[name].double(), expected) < max(1e-5, 5 * lost), name


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["memora", "atlas", "ttt"])
def test_two_threads_give_the_digits_of_one(kind: str):
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(answers_of(kind))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def answers_of(kind: str) -> list[Tensor]:
    if kind == "ttt":
        given = retained(21, 8)
        q, k, v, rate = (given[name].requires_grad_() for name in ("q", "k", "v", "rate"))
        weights = tuple(torch.cat([w, w[:, :1]], 1) for w in memory(8, **WIDE))
        factor, norm = (
            torch.linspace(1, 0.2, 5).double().requires_grad_(),
            (torch.ones(2, 8).double(), torch.zeros(2, 8).double()),
        )
        y, _ = native_ttt(q, k, v, rate=rate, factor=factor, weights=weights, norm=norm)
        return [y, *torch.autograd.grad(y.square().sum(), [q, k, v, rate, factor])]
    if kind == "atlas":
        rule = WindowRule(chunk=5, window=3, orthogonal="chunk")
        found = answers(window.native, windowed(21, True, 13, 8), memory(13, **WIDE), [21], rule)
    else:
        rule, initial = RetentionRule(chunk=5, **RETENTION["memora"]), memory(8, positive=True, **WIDE)
        found = answers(retention.native, retained(21, 8), initial, [21], rule)
    return [x for x in found.values() if x is not None]


def test_what_is_not_covered_is_said_and_auto_goes_on():
    rule, given = WindowRule(chunk=4, orthogonal="token"), windowed(5, True)
    with pytest.raises(NotCovered, match="once a chunk"):
        window_memory(**given, initial=memory(6), rule=rule, provider="native")
    uneven = tuple(torch.ones(2, a, b).double() for a, b in ((4, 5), (5, 6), (6, 4)))
    with pytest.raises(NotCovered, match="of one width"):
        retention_memory(**retained(5), initial=uneven, rule=RetentionRule(4), provider="native")
    with watch() as ran:
        window_memory(**given, initial=memory(6), rule=rule)
        retention_memory(**retained(5), initial=uneven, rule=RetentionRule(4))
    assert ran == {"chunked"}


def test_a_tensor_of_another_shape_is_named():
    given = retained(5)
    with pytest.raises(ValueError, match="keep has the shape"):
        retention.native(**{**given, "keep": given["keep"][:, :, :1]}, initial=memory(), rule=RetentionRule(4))
