"""Looks at growing numbers of seeds: the error they spend, p over all of them, and which claims stay open."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import special

from results.plans.method.claims import Claim
from results.plans.method.looks import Looks, Schedule
from results.plans.reader import PlanError, load
from results.report import evaluations
from results.report.findings import claims, pairwise, spending
from tests.support import synthetic

THIRDS = (1 / 3, 2 / 3, 1.0)
SCHEDULE = Looks(15).after(range(5))
CLAIM = Claim("A finds more", "a paper", "retnet", "transformer", "needle", "accuracy", margin=0.05)


@pytest.mark.parametrize(
    ("kind", "printed"),
    [  # bounds of z for five equal looks at two-sided 5 %, as Lan and DeMets' program prints them
        ("obrien-fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ("pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ],
)
def test_levels_are_those_of_lan_and_demets(kind, printed):
    found = spending.levels(0.025, (0.2, 0.4, 0.6, 0.8, 1.0), kind)
    assert [-special.ndtri(level) for level in found] == pytest.approx(printed, abs=2e-4)
    assert spending.spent(0.025, 1.0, kind) == 0.025


def test_looks_at_paired_t_tests_err_about_as_often_as_they_say():
    draws = np.random.default_rng(0).standard_normal((60_000, 15))
    wrong = np.zeros(len(draws), bool)
    for count, level in zip((5, 10, 15), spending.levels(0.025, THIRDS, "pocock"), strict=True):
        seen = draws[:, :count]
        t = seen.mean(1) / (seen.std(1, ddof=1) / math.sqrt(count))
        wrong |= special.stdtr(count - 1, -abs(t)) <= level
    assert 0.045 < wrong.mean() < 0.056  # later looks take the normal law


def test_p_over_looks_is_the_error_at_which_a_look_would_have_ended_the_test():
    error, look = spending.over_looks([0.3, 0.004], THIRDS, "pocock")
    assert look == 1 and spending.levels(error, THIRDS[:2], "pocock")[1] == pytest.approx(0.004, rel=1e-4)
    assert spending.over_looks([0.3, 0.004, 0.9], THIRDS, "pocock")[0] == error  # a later look takes nothing back
    assert spending.over_looks([0.02], (1.0,), "pocock") == (0.02, 0)
    assert spending.over_looks([0.0, 0.5], THIRDS, "pocock") == (0.0, 0)
    assert spending.over_looks([0.9, 0.8], THIRDS, "obrien-fleming")[0] == 1.0


def test_the_seeds_of_each_look_follow_the_plans():
    assert Looks(8).after([3, 9, 4]) == Schedule(
        ((3, 9, 4), (3, 9, 4, 10, 11, 12), (3, 9, 4, 10, 11, 12, 13, 14)), "pocock"
    )
    assert SCHEDULE.fractions == pytest.approx(THIRDS)


def found(gaps, worse=0.5):
    """An evaluation where the claim's better model lies so far above the other, one gap a seed; None for a failed seed."""
    rows = []
    for seed, gap in enumerate(gaps):
        for model, value in (("retnet", None if gap is None else worse + gap), ("transformer", worse)):
            cell = synthetic.cell(model, "needle", seed=seed)
            measured = [] if value is None else [(None, "accuracy", value, 200, {"length": 64})]
            rows += synthetic.rows_of(cell, measured, reason="diverged" if value is None else "")
    return evaluations.grouped(rows)


WIDE = [0.3, -0.1, 0.25, -0.05, 0.2]  # shows nothing at five seeds


def test_a_claim_is_decided_at_the_first_look_that_pays_for_it_and_keeps_it():
    (five,) = claims.judge([CLAIM], found(WIDE), SCHEDULE)
    assert five.verdict == "undecided" and "5 seeds, look 1 of 3 (2.3 % of the 5 % of error spent)" in five.reason
    ten = found([*WIDE, 0.2, 0.22, 0.18, 0.25, 0.21])
    (later,) = claims.judge([CLAIM], ten, SCHEDULE)
    assert later.verdict == claims.SAME and "10 seeds, look 2 of 3 (3.8 % of the 5 % of error spent)" in later.reason
    assert claims.judge([CLAIM], ten, SCHEDULE, most=1)[0] == five  # what was seen before the second look
    (after,) = claims.judge(
        [CLAIM], found([*WIDE, 0.2, 0.22, 0.18, 0.25, 0.21, -0.9, -0.9, -0.9, -0.9, -0.9]), SCHEDULE
    )
    assert after.verdict == claims.SAME and "10 seeds, look 2 of 3" in after.reason
    assert "over all 15 seeds difference -" in after.reason


def test_level_is_paid_for_look_by_look_too():
    near = [0.03, -0.03, 0.02, -0.02, 0.0]
    (five,) = claims.judge([CLAIM], found(near), SCHEDULE)  # p 0.005 by itself
    assert five.verdict == claims.LEVEL and "look 1 of 3" in five.reason
    narrow = dataclasses.replace(CLAIM, margin=0.03)
    assert claims.judge([narrow], found(near), SCHEDULE)[0].verdict == "undecided"
    (ten,) = claims.judge([narrow], found(near * 2), SCHEDULE)
    assert ten.verdict == claims.LEVEL and "10 seeds, look 2 of 3" in ten.reason


def test_orderings_of_all_pairs_take_the_seeds_of_the_first_look_alone():
    exams = found([*WIDE, 0.2, 0.22, 0.18, 0.25, 0.21])
    assert "1 show a difference" in pairwise.markdown(exams)
    assert "0 show a difference" in pairwise.markdown(exams, SCHEDULE)


def test_a_look_counts_when_all_its_seeds_have_rows_failed_ones_too():
    (part,) = claims.judge([CLAIM], found([0.2, 0.21, 0.2, 0.2, 0.22, 0.2]), SCHEDULE)
    assert "5 seeds, look 1 of 3" in part.reason and part.verdict == claims.SAME
    (before,) = claims.judge([CLAIM], found([0.2, 0.21, 0.2, 0.2]), SCHEDULE)
    assert before.verdict == "undecided" and "4 shared seeds; a direction is stated from 5 up" in before.reason
    (failed,) = claims.judge([CLAIM], found([0.2, 0.21, None, 0.2, 0.22]), SCHEDULE)
    assert failed.verdict == "undecided" and "4 shared seeds" in failed.reason
    (more,) = claims.judge([CLAIM], found([0.2, 0.21, None, 0.2, 0.22, 0.2, 0.2, 0.21, 0.2, 0.2]), SCHEDULE)
    assert more.verdict == claims.SAME and "9 seeds, look 2 of 3" in more.reason


def test_a_sixth_seed_without_looks_is_looked_at_with_the_rest():
    (one,) = claims.judge([CLAIM], found([*WIDE, 0.2]))
    assert "6 seeds" in one.reason and "look" not in one.reason


PLAN = """
title = "Looks"
question = "?"
models = ["retnet", "transformer"]
seeds = [0, 1, 2, 3, 4]
learning_rate = 1e-3
size = "nano"
budget = { steps = 1, batch_tokens = 8 }
looks = { most_seeds = 15, spending = "pocock" }
[[tasks]]
name = "needle"
"""


def test_a_plan_states_its_looks_and_other_seeds_are_looked_at_once(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    plan = load(tmp_path)
    assert plan.schedule == SCHEDULE
    assert plan.with_overrides(seeds=[7]).schedule is None and plan.with_overrides(steps=3).schedule == SCHEDULE


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("most_seeds = 15", "most_seeds = 5", "there are 5 seeds already"),
        ('"pocock"', '"pocok"', "did you mean pocock"),
        ("most_seeds", "seeds", "unknown key 'seeds'"),
        ("[0, 1, 2, 3, 4]", "[18446744073709551615]", "more than 64 bits"),
    ],
)
def test_wrong_looks_are_one_sentence(tmp_path, old, new, says):
    (tmp_path / "plan.toml").write_text(PLAN.replace(old, new))
    with pytest.raises(PlanError, match=says):
        load(tmp_path)
