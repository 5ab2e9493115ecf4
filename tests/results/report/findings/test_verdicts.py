"""Level, the share of seeds that solved a task, controls, and what deciding an open claim would cost."""

from __future__ import annotations

import dataclasses

import pytest

from results.plans.method.claims import Claim
from results.report import evaluations, statistics
from results.report.findings import claims, price, solved
from results.report.statistics import Difference
from results.report.tables import summary
from tests.support import synthetic

CLAIM = Claim("A finds more", "a paper", "retnet", "transformer", "needle", "accuracy")
NEAR = [0.50, 0.51, 0.49, 0.505, 0.495]


def found(**values):
    rows = []
    for model, shares in values.items():
        for seed, value in enumerate(shares):
            cell = synthetic.cell(model, "needle", seed=seed)
            rows += synthetic.rows_of(cell, [(None, "accuracy", value, 200, {"length": 64})])
    return evaluations.grouped(rows)


def judged(exams, **changes):
    return claims.judge([dataclasses.replace(CLAIM, **changes)], exams)[0]


def test_equivalence_is_the_larger_of_both_one_sided_tests():
    gaps = {"a": dict(enumerate([0.1, 0.2, 0.3])), "b": dict.fromkeys(range(3), 0.0)}
    gap = statistics.paired("a", "b", gaps)  # mean 0.2, spread 0.1
    t = (0.5 - 0.2) / (0.1 / 3**0.5)  # 3 sqrt(3), two degrees of freedom: tail (1 - t / sqrt(2 + t t)) / 2
    assert statistics.equivalence(gap, 0.5) == pytest.approx((1 - t / (2 + t * t) ** 0.5) / 2)
    assert statistics.equivalence(gap, 0.2) == pytest.approx(0.5)
    flat = Difference("a", "b", 0.1, 0.1, 0.1, 0.0, 5)
    assert statistics.equivalence(flat, 0.2) == 0.0 and statistics.equivalence(flat, 0.1) == 1.0


def test_level_needs_a_margin_stated_beforehand_and_evidence():
    exams = found(retnet=NEAR, transformer=NEAR[::-1])
    level = judged(exams, margin=0.05)
    assert level.verdict == "level at this scale" and "within 5 points: p 1.2e-05" in level.reason
    assert level.sentence == "retnet and transformer lie less than 5 points apart"
    assert judged(exams).verdict == "undecided" and "within" not in judged(exams).reason
    assert judged(exams, margin=0.003).verdict == "undecided"
    assert judged(found(retnet=NEAR[:4], transformer=NEAR[:4]), margin=0.05).verdict == "undecided"


def test_a_sure_difference_within_the_margin_is_level_and_one_beyond_it_is_not():
    exams = found(retnet=[value + 0.02 for value in NEAR], transformer=NEAR)
    assert judged(exams).verdict == "same direction at this scale"
    within = judged(exams, margin=0.05)
    assert within.verdict == "level at this scale" and "difference +2 points" in within.reason
    assert judged(exams, margin=0.015).verdict == "same direction at this scale"


def test_levels_are_corrected_over_all_claims_with_a_margin():
    exams = found(retnet=[0.5, 0.53, 0.48, 0.51, 0.47], transformer=NEAR)
    claim = dataclasses.replace(CLAIM, margin=0.02)
    assert claims.judge([claim], exams)[0].verdict == "level at this scale"
    assert {one.verdict for one in claims.judge([claim] * 4, exams)} == {"undecided"}
    mixed = claims.judge([claim, *[CLAIM] * 4], exams)  # claims without a margin cost levels nothing
    assert mixed[0].verdict == "level at this scale"


def test_seeds_that_solved_the_task_stand_beside_a_bimodal_mean():
    exams = found(retnet=[1.0, 0.99, 0.2, 1.0, 1.0, 1.0], transformer=[0.2, 0.1, 0.2, 0.3, 0.1, 0.2])
    # Fisher: tables as rare as 5 of 6 against 0 of 6 are two of 6 C(12, 5) = 792 each way: 12 / 792
    assert "solved by 5 of 6 seeds against 0 of 6 (Fisher's exact test: p 0.015)" in judged(exams).reason
    assert "5 of 6 seeds solved it" in summary.markdown(exams)
    even = found(retnet=NEAR, transformer=[1.0, 0.99, 0.97, 0.96, 0.94])
    assert "solved" not in judged(even).reason and "solved" not in summary.markdown(even)
    assert (
        solved.counted(
            dataclasses.replace(CLAIM, metric="bits_per_byte"), {"retnet": {0: 1.0, 1: 0.1}, "transformer": {}}
        )
        is None
    )


def test_a_question_too_hard_or_too_easy_for_both_is_told():
    high = [0.99, 0.98, 1.0, 0.97, 0.99]
    assert "the question is too easy for both" in judged(found(retnet=high, transformer=high[::-1])).reason
    exams = found(retnet=NEAR, transformer=[value + 0.1 for value in NEAR])
    assert "neither" not in judged(exams).reason and "too easy" not in judged(exams).reason
    floor = synthetic.rows_of(
        synthetic.cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.9, 400, {"length": 64})]
    )
    rows = [row for own in exams[0].rows.values() for row in own]
    said = judged(evaluations.grouped(rows + floor)).reason
    assert "neither is better than the best trivial baseline" in said
    near = [row | {"value": 0.3} if row["metric"] == "accuracy" else row for row in rows]
    level = judged(evaluations.grouped(near + floor), margin=0.05)
    assert level.sentence.endswith(" lie less than 5 points apart, and neither learned it")


def test_a_control_stands_beside_its_claim_with_its_parameters():
    exams = found(retnet=NEAR, transformer=NEAR, mamba=[value - 0.1 for value in NEAR])
    own = judged(exams, control="mamba")
    assert own.control.startswith("mamba, parameters +0.5 %: retnet against it: difference +10 points [")
    far = [
        row | {"parameters": 200_000} if row["model"] == "mamba" else row
        for own in exams[0].rows.values()
        for row in own
    ]
    assert "beyond the tolerance of 5 %" in judged(evaluations.grouped(far), control="mamba").control
    assert judged(exams, control="transformer").control.startswith("transformer, the other model of the claim")
    assert judged(exams, control="rmt").control.endswith("not measured here")
    page = claims.markdown([own, judged(exams)])
    assert "| control |" in page and "| none |" in page and "1 of 2 claims has no control." in page


def test_seeds_that_would_decide_are_those_of_textbooks():
    assert price.seeds_for_direction(0.5, 1.0, 0.05) == 34  # of the paired t test at power 0.8 (Cohen, 1988)
    assert price.seeds_for_direction(-0.5, 1.0, 0.05) == 34
    assert price.seeds_for_level(0.0, 1.0, 0.5, 0.05) == 36
    assert price.seeds_for_direction(0.0, 1.0, 0.05) is None and price.seeds_for_level(0.5, 1.0, 0.5, 0.05) is None
    assert price.seeds_for_direction(0.1, 0.0, 0.05) == 5


def test_questions_help_as_far_as_chance_is_what_parts_the_seeds():
    # all of the variance is chance, and twice what five seeds bear: twice the questions
    spread = (2**0.5) * 0.05 / price._effect(5, 0.05)
    assert price.questions_for_direction(0.05, spread, 5, 0.05, spread**2 * 64, 64) in (128, 129)
    # a third of it is: the rest alone is too much
    assert price.questions_for_direction(0.05, spread, 5, 0.05, spread**2 * 64 / 3, 64) is None


def test_an_open_claim_tells_its_price():
    exams = found(retnet=[0.6, 0.4, 0.62, 0.45, 0.58], transformer=NEAR)
    open_claim = judged(exams, margin=0.1)
    told = open_claim.price
    assert open_claim.ground == f"{open_claim.reason}; {told}" and told in claims.markdown([open_claim])
    seeds = price.seeds_for_direction(0.03, 0.0, 0.05)
    assert seeds == 5 and told.startswith("to decide it at the spread seen (power 0.8): ")
    assert " seeds for such a difference, or " in told and " seeds for level" in told and "questions" in told
    assert "for level" not in judged(exams).price
    assert "one seed shows no spread" in judged(found(retnet=[0.6], transformer=[0.5])).price
    assert "no number of seeds for a difference of 0" in judged(found(retnet=NEAR, transformer=NEAR)).price
    assert judged(found(retnet=[0.9] * 5, transformer=NEAR)).price == ""
