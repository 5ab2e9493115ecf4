"""Memories after Titans: their laws against Titans' and against arithmetic, their chunked forms against the laws, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from models.ops.associative_memory import retention_chunked, retention_recurrence, window_chunked, window_recurrence
from models.ops.associative_memory.newton_schulz import newton_schulz
from models.ops.associative_memory.retention_rule import RetentionRule, bent, divisor
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.neural_memory import recurrence as titans
from tests.support.memories import (
    BATCH,
    RETENTION,
    WIDTH,
    WINDOW,
    agree,
    drawn,
    leaves,
    memory,
    relative,
    retained,
    windowed,
)  # fmt: skip


@pytest.mark.parametrize("kind", RETENTION)
def test_retention_in_chunks_is_the_law(kind: str):
    cuts = [1, 6, 2, 5]
    rule = RetentionRule(chunk=4, **RETENTION[kind])
    initial = memory(positive=rule.retention == "kl")
    agree(retention_recurrence.recurrence, retention_chunked.chunked, retained(sum(cuts)), initial, rule, cuts)


@pytest.mark.parametrize("kind", ["moneta", "memora", "yaad"])
@pytest.mark.parametrize("chunk", [1, 32])
def test_retention_agrees_online_and_in_one_open_chunk(kind: str, chunk: int):
    rule = RetentionRule(chunk=chunk, **RETENTION[kind])
    initial = memory(positive=rule.retention == "kl", depth=3)
    agree(retention_recurrence.recurrence, retention_chunked.chunked, retained(7), initial, rule, [3, 4])


@pytest.mark.parametrize("form", [retention_recurrence.recurrence, retention_chunked.chunked])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "lp", "power": 2.0, "sharpness": None, "retention": "lq", "norm": 2.0},
        {"loss": "huber"},
        {"loss": "huber", "per_channel": True},
    ],
    ids=["p = q = 2", "delta = inf", "delta = inf per channel"],
)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("chunk", [1, 4])
def test_square_losses_are_titans_step_without_momentum(form, settings: dict, residual: bool, chunk: int):
    given, initial = retained(9), memory()
    given["threshold"] = torch.full_like(given["threshold"], math.inf)
    y, state = form(**given, initial=initial, rule=RetentionRule(chunk=chunk, residual=residual, **settings))
    del given["threshold"]
    own = {"momentum": torch.zeros_like(given["rate"]), "rule": titans.Rule(chunk, residual=residual)}
    expected, (weights, _, _) = titans.recurrence(**given, **own, initial=initial)
    assert relative(y, expected) < 1e-12
    assert all(relative(a, b) < 1e-12 for a, b in zip(state[0], weights, strict=True))


def test_an_infinite_threshold_and_no_error_have_finite_gradients():
    e = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    delta = torch.tensor([[1.0], [math.inf]], dtype=torch.float64, requires_grad=True)
    bent(e, delta, RetentionRule(loss="huber")).sum().backward()
    assert torch.equal(e.grad, torch.ones_like(e)) and not delta.grad.any()


def test_losses_by_hand():
    e, delta = torch.tensor([[3.0, -4.0]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
    assert bent(e, delta, RetentionRule(loss="huber"))[0].tolist() == pytest.approx([3 * 2 / 5, -4 * 2 / 5])
    assert bent(e, delta, RetentionRule(loss="huber", per_channel=True)).tolist() == [[2, -2]]
    assert bent(e, delta, RetentionRule(loss="lp", sharpness=None)).tolist() == [[9, -16]]
    smoothed = bent(e, delta, RetentionRule(loss="lp"))
    torch.testing.assert_close(smoothed, torch.tensor([[9.0, -16.0]], dtype=torch.float64), rtol=1e-6, atol=0.0)


def test_one_online_step_of_every_retention_is_its_equation():
    """With one token a chunk, from the equations themselves (24 and 27), one matrix, squared loss."""
    given = retained(1)
    for kind in ("lq", "kl"):
        rule = RetentionRule(chunk=1, residual=False, retention=kind, norm_floor=1e-9, mass=1.0)
        carried = memory(depth=1, positive=kind == "kl")[0].expand(BATCH, -1, -1, -1)
        norm = (carried.abs() ** 4).sum((-2, -1), keepdim=True) ** 0.5  # |A|_4^2
        w = carried / norm if kind == "lq" else carried
        k, v, q = (given[name][:, 0, :, None] for name in "kvq")
        keep, rate = (given[name][:, 0, :, None, None] for name in ("keep", "rate"))
        u = k.mT @ (k @ w - v)
        if kind == "lq":
            after = keep * carried - rate * u
            after = after / (after.abs() ** 4).sum((-2, -1), keepdim=True) ** 0.5
        else:
            raw = (keep * carried.log() - rate * u).exp()
            after = raw / raw.sum(-2, keepdim=True)
        y, _ = retention_recurrence.recurrence(**given, initial=(carried[0],), rule=rule)
        assert relative(y[:, 0], (q @ after)[..., 0, :]) < 1e-12, kind


def test_a_floor_bounds_the_retained_memory():
    rule = RetentionRule(retention="lq")
    for size in (1e-3, 1.0, 1e3):
        carried = size * drawn(3, 6, 5)
        retained_memory = carried / divisor(carried, rule)
        assert (torch.linalg.vector_norm(retained_memory, 4, dim=(-2, -1)) <= 1 + 1e-12).all()
        assert (retained_memory.abs() <= carried.abs() + 1e-12).all()


@pytest.mark.parametrize("window", [1, 3, 6])
@pytest.mark.parametrize(("orthogonal", "momentum"), WINDOW)
def test_window_in_chunks_is_the_law(orthogonal: str | None, momentum: bool, window: int):
    cuts, rule = [1, 6, 2, 5], WindowRule(chunk=4, window=window, orthogonal=orthogonal)
    agree(window_recurrence.recurrence, window_chunked.chunked, windowed(14, momentum), memory(6), rule, cuts)


@pytest.mark.parametrize("chunk", [1, 32])
@pytest.mark.parametrize(("orthogonal", "momentum"), WINDOW)
def test_window_agrees_online_and_in_one_open_chunk(orthogonal: str | None, momentum: bool, chunk: int):
    rule = WindowRule(chunk=chunk, window=3, orthogonal=orthogonal, activation="silu")
    given = windowed(7, momentum)
    agree(window_recurrence.recurrence, window_chunked.chunked, given, memory(6, depth=3), rule, [3, 4])


@pytest.mark.parametrize("form", [window_recurrence.recurrence, window_chunked.chunked])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_window_of_one_token_is_titans_rule(form, momentum: bool, chunk: int):
    """With momentum at a constant rate: Titans' stands inside S, this one outside."""
    given, initial = windowed(9, momentum), memory(6)
    given["weight"] = torch.ones_like(given["weight"])
    if momentum:
        given["rate"] = torch.full_like(given["rate"], 0.1)
    y, (weights, _, _) = form(**given, initial=initial, rule=WindowRule(chunk=chunk, window=1))
    del given["weight"]
    eta = given.pop("momentum", torch.zeros_like(given["rate"]))
    expected, state = titans.recurrence(**given, momentum=eta, initial=initial, rule=titans.Rule(chunk))
    assert relative(y, expected) < 1e-12
    assert all(relative(a, b) < 1e-12 for a, b in zip(weights, state[0], strict=True))


def test_orthogonal_steps_online_are_one():
    given = windowed(9, True)
    ys = [
        window_chunked.chunked(**given, initial=memory(6), rule=WindowRule(1, window=3, orthogonal=kind))[0]
        for kind in ("token", "chunk")
    ]
    assert relative(*ys) < 1e-12


def test_newton_schulz_keeps_the_vectors_and_levels_the_values():
    s = drawn(3, 7, 4)
    u, _, vh = torch.linalg.svd(s, full_matrices=False)
    left = u.mT @ newton_schulz(s) @ vh.mT
    values = left.diagonal(dim1=-2, dim2=-1)
    assert (left - torch.diag_embed(values)).abs().max() < 1e-12
    assert 0.6 < values.min() and values.max() < 1.3
    assert relative(newton_schulz(s.mT), newton_schulz(s).mT) < 1e-12
    assert not newton_schulz(torch.zeros(1, 2, 3)).any()


@pytest.mark.parametrize("fast", [retention_chunked.chunked, window_chunked.chunked])
def test_half_precision_keeps_its_state_in_float32(fast):
    retention = fast is retention_chunked.chunked
    given = {name: x.bfloat16() for name, x in (retained(10) if retention else windowed(10, True)).items()}
    weights = tuple(w.float() for w in memory(WIDTH if retention else 6))
    fixed = {"initial": weights, "rule": RetentionRule(4) if retention else WindowRule(4)}
    y, state = fast(**given, **fixed)
    assert y.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in leaves(state))
    wide, _ = fast(**{name: x.float() for name, x in given.items()}, **fixed)
    assert relative(y.float(), wide) < 1e-2


def test_impossible_rules_say_what_to_do():
    for wrong, sentence in (
        ({"chunk": 0}, "at least 1 token"),
        ({"loss": "l1"}, "l2, lp, huber"),
        ({"retention": "none"}, "l2, lq, kl"),
        ({"power": 0.5}, "p >= 1"),
        ({"norm_floor": 0.0}, "greater than 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            RetentionRule(**wrong)
    with pytest.raises(ValueError, match="chunk and window"):
        WindowRule(window=0)
    with pytest.raises(ValueError, match="token or chunk"):
        WindowRule(orthogonal="all")
    with pytest.raises(ValueError, match="give the memory one"):
        window_chunked.chunked(**windowed(3, False), initial=memory(6), rule=WindowRule(orthogonal="token"))
