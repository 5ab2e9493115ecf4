"""Contests: who takes part in which round, what becomes of those who cannot, and what is worked out from the times."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tasks.speed import contest
from tasks.speed.contest import CandidateResult, TimedCandidate

RUN = {"length": 8, "limit": 5.0, "dtype": "float32", "device": "cpu"}


def entrant(name, log=None, y=None, **settings):
    def step():
        if log is not None:
            log.append(name)
        return torch.zeros(1) if y is None else y

    return TimedCandidate(name, lambda: step, **{"repeats": 3, "counted": False} | settings)


@pytest.fixture
def clock(monkeypatch):
    """Steps take the seconds that they return, whatever the machine does; the product takes two."""
    monkeypatch.setattr(contest, "_product", lambda dtype, device: lambda: torch.tensor(2.0))

    def clocked(step, device):
        y = step()
        return y.item(), y.item(), y

    monkeypatch.setattr(contest, "_clocked", clocked)


def test_entrants_take_turns_and_a_slow_one_fewer_rounds(clock):
    log = []
    held = contest.hold([entrant("a", log), entrant("b", log), entrant("slow", log, repeats=1)], **RUN)
    assert log[:3] == ["a", "b", "slow"]  # warm-up
    rounds = log[3:-6]
    assert rounds == ["a", "b", "slow", "b", "a", "a", "b"]
    assert log[-6:] == ["a", "a", "b", "b", "slow", "slow"]  # memory, in rounds of its own
    assert [len(s.walls) for s in held.standings.values()] == [3, 3, 1] and len(held.products) == 3


def test_a_round_on_a_busy_machine_is_held_again(monkeypatch):
    shares = iter([1.0, 0.1, 1.0, 0.9, 1.0])  # the warm-up, then candidate and product of each try

    def clocked(step, device):
        return 1.0, next(shares), step()

    monkeypatch.setattr(contest, "_clocked", clocked)
    log = []
    held = contest.hold([entrant("a", log, repeats=1)], **RUN)
    assert held.standings["a"].processor == [0.9] and next(shares, None) is None
    assert len(log) == 1 + 2 + contest.MEMORY_ROUNDS


def test_who_cannot_take_part_says_why_and_stops_nobody(clock):
    def absent():
        raise ImportError("nothing-like-it is not installed; pip install nothing-like-it")

    def broken():
        raise RuntimeError("no\nkernel")

    field = [
        entrant("good"),
        TimedCandidate("absent", absent),
        TimedCandidate("broken", broken),
        entrant("slow", y=torch.tensor(9.0)),
        entrant("short", longest=4),
        entrant("odd", y=torch.tensor(math.nan)),
    ]
    standings = contest.hold(field, **RUN).standings
    assert {name: s.status for name, s in standings.items()} == {
        "good": "ok", "absent": "absent", "broken": "failed", "slow": "failed", "short": "left out", "odd": "ok",
    }  # fmt: skip
    assert standings["absent"].reason.endswith("pip install nothing-like-it")
    assert standings["broken"].reason == "RuntimeError: no kernel"
    assert standings["slow"].reason == "too slow: one step took 9 s, more than the limit of 5 s"
    assert "up to length 4" in standings["short"].reason
    assert not standings["odd"].finite and standings["good"].finite


def test_ratios_are_taken_within_rounds_and_the_floor_from_the_product():
    rival = CandidateResult(walls=[1.0, 2.0, 4.0], processor=[1.0, 1.0, 1.0], peaks=[100, 100])
    mine = CandidateResult(walls=[3.0, 4.0], processor=[2.0, 4.0], peaks=[50, 250], flops=contest.PRODUCT**3)
    outcome = contest.Outcome(
        {"rival": rival, "mine": mine, "gone": CandidateResult(status="absent")}, [0.5, 0.5], (0.1, 0.2)
    )
    found = {(name, m.metric): m for name, m in contest.findings(outcome, "rival", {"length": 8})}
    value = {key: m.value for key, m in found.items()}
    assert value["mine", "time_ratio"] == 2.5 and value["mine", "cpu_time_ratio"] == 3.0  # of 3/1 and 4/2
    assert value["rival", "time_ratio"] == 1.0 and value["mine", "memory_ratio"] == 1.5
    assert value["mine", "training_step_seconds_quantile_90"] == 4.0
    assert value["mine", "times_the_floor"] == 3.5 / 0.25
    assert value["rival", "matrix_product_flops_per_second"] == 2 * contest.PRODUCT**3 / 0.5
    assert ("rival", "times_the_floor") not in found and not any(name == "gone" for name, _ in found)
    assert all(m.where["length"] == 8 for m in found.values())


def test_without_the_reference_there_are_times_and_no_ratios():
    outcome = contest.Outcome(
        {"rival": CandidateResult(status="absent"), "mine": CandidateResult([1.0], [1.0], [5])}, [1.0], (0, 0)
    )
    metrics = {m.metric for _, m in contest.findings(outcome, "rival", {})}
    assert "training_step_seconds" in metrics and not {"time_ratio", "cpu_time_ratio", "memory_ratio"} & metrics


def test_a_decoding_step_is_many_tokens_without_a_gradient_and_its_metric_one():
    seen = []
    y = contest.decoding_step(lambda: seen.append(torch.is_grad_enabled()) or torch.tensor(len(seen)))()
    assert seen == [False] * contest.TOKENS and y == contest.TOKENS
    outcome = contest.Outcome(
        {"mine": CandidateResult([contest.TOKENS * 5e-6], [contest.TOKENS * 4e-6], [5])}, [1.0], (0, 0)
    )
    value = {m.metric: m.value for _, m in contest.findings(outcome, "mine", {}, "decoding")}
    assert value["decoding_microseconds_per_token"] == pytest.approx(5.0)
    assert value["decoding_cpu_microseconds_per_token_sample"] == pytest.approx(4.0) and value["time_ratio"] == 1.0


def test_products_are_counted_forward_and_backward():
    layer, x = torch.nn.Linear(16, 16, bias=False), torch.randn(2, 8, 16)
    step = contest.layer_step(layer, list(layer.parameters()), x)
    assert contest.count_flops(step) == 3 * 2 * (2 * 8 * 16 * 16)
    assert layer.weight.grad is not None and x.grad is None


@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_is_counted_and_a_causal_one_half(causal):
    q = torch.randn(1, 2, 16, 8, requires_grad=True)

    def step():
        y = F.scaled_dot_product_attention(q, q, q, is_causal=causal)
        y.sum().backward()
        return y

    product = 2 * 1 * 2 * 16 * 16 * 8
    assert contest.count_flops(step) == (2 + 5) * product // (2 if causal else 1)


class Within(torch.autograd.Function):
    """A layer whose gradient is taken inside of its backward pass, through a module that its forward pass called."""

    @staticmethod
    def forward(ctx, x, layer):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = layer(ctx.x)
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, dy):
        return *torch.autograd.grad(ctx.y, ctx.x, dy), None


def test_products_are_counted_where_a_backward_pass_goes_through_a_module_by_itself():
    layer, x = torch.nn.Linear(16, 16, bias=False), torch.randn(8, 16, requires_grad=True)

    def step():
        y = Within.apply(x, layer)
        y.sum().backward()
        return y

    assert contest.count_flops(step) == 2 * 2 * 8 * 16 * 16
