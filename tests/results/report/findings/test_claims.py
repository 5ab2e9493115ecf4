"""Claims of papers: read strictly, and judged by the seeds; the orderings that a report states."""

from __future__ import annotations

import dataclasses

import pytest

from results.plans.method.claims import Claim, read_claim
from results.plans.toml_reader import PlanError, TableReader
from results.report import evaluations, report, statistics
from results.report.figures import style
from results.report.figures.kinds.findings import rank
from results.report.findings import claims, grounds, pairwise
from results.report.tables import table
from tests.support import synthetic

FEW = ("transformer", "retnet")
WHERE = {"length": 512}
TABLE = {
    "text": "RetNet beats attention", "source": "RetNet, Table 1", "better": "retnet", "worse": "transformer",
    "task": "language-modelling", "metric": "bits_per_byte", "where": {"length": 512},
}  # fmt: skip


def exams(retnet, transformer):
    """An evaluation where the two models have these bits per byte, one a seed."""
    rows = []
    for model, values in (("retnet", retnet), ("transformer", transformer)):
        for seed, value in enumerate(values):
            cell = synthetic.cell(model, "language-modelling", seed=seed)
            rows += synthetic.rows_of(cell, [(None, "bits_per_byte", value, 1000, {"length": 512})])
    return evaluations.grouped(rows)


def verdict(found, **changes):
    claim = dataclasses.replace(read_claim(TABLE, TableReader("x")), **changes)
    return claims.judge([claim], found)[0]


LOW, HIGH = [1.0, 1.1, 1.0, 1.2, 1.1], [2.0, 2.1, 2.1, 2.2, 2.0]


def test_directions_follow_the_metric_and_the_evidence():
    assert verdict(exams(LOW, HIGH)).verdict == "same direction at this scale"
    assert verdict(exams(HIGH, LOW)).verdict == "opposite direction at this scale"
    close = verdict(exams([1.0, 1.2, 1.1, 1.3, 1.0], [1.1, 1.1, 1.2, 1.2, 1.1]))
    assert close.verdict == "undecided" and "no difference shown" in close.reason
    few = verdict(exams(LOW[:4], HIGH[:4]))
    assert few.verdict == "undecided" and "4 shared seeds; a direction is stated from 5 up" in few.reason
    assert verdict(exams(LOW, HIGH), task="needle").reason == "not measured here"
    assert verdict(exams(LOW, HIGH), better="mamba").reason == "not measured here"
    elsewhere = verdict(exams(LOW, HIGH), where={"lenght": 512})
    assert elsewhere.reason == "retnet is measured here, but none of its rows tells bits per byte, lenght 512"


def test_a_ground_names_failed_seeds_and_evaluations_that_would_fit_too():
    rows = []
    for model, values in (("retnet", [1.0, 1.1, 1.2, 1.3, 1.4, float("nan")]), ("transformer", 6 * [2.0])):
        for seed, value in enumerate(values):
            cell = synthetic.cell(model, "language-modelling", seed=seed)
            rows += synthetic.rows_of(cell, [(None, "bits_per_byte", value, 9, WHERE)])
    (one,) = evaluations.grouped(rows)
    found = verdict([one])
    assert (
        found.verdict == "same direction at this scale"
        and "without 1 of 6 seeds of retnet, which gave no" in found.reason
    )
    twice = verdict([one, dataclasses.replace(one, title="the other")])
    assert (
        "asked in language-modelling alone, though the other would fit too" in twice.reason
        and "fit" not in found.reason
    )


def timings(rounds):
    """An evaluation where RetNet takes in a hundred tokens a second more than attention in each round."""
    rows = []
    for model, faster in (("retnet", 100.0), ("transformer", 0.0)):
        for turn in range(rounds):
            cell = synthetic.cell(model, "throughput", "timing", turn)
            speed = 1000.0 + faster + 50 * (turn % 2)
            rows += synthetic.rows_of(cell, [(None, "training_tokens_per_second", speed, 3, {"length": 512})])
    return evaluations.grouped(rows)


def test_a_claim_about_speed_rests_on_rounds_and_says_so():
    asked = {"task": "throughput", "metric": "training_tokens_per_second"}
    one = verdict(timings(1), **asked)
    assert one.verdict == "undecided" and "1 shared round; a direction is stated from 5 up" in one.reason
    assert "one round shows no spread" in one.price
    five = verdict(timings(5), **asked)
    assert five.verdict == "same direction at this scale" and "5 rounds" in five.reason and "seed" not in five.reason
    assert "read round for seed" in claims.markdown([five])
    assert "read round for seed" not in claims.markdown([verdict(exams(LOW, HIGH))])
    [found] = timings(5)
    assert "over 5 rounds" in table.notes(found, table.layout(found)[0]) and "rounds 0, 1, 2, 3, 4" in table.conditions(
        found
    )


def test_the_interval_of_a_difference_of_shares_ends_at_100_points():
    gap = statistics.paired("a", "b", {"a": {0: 1.0, 1: 0.0, 2: 1.0}, "b": {0: 0.0, 1: 0.9, 2: 0.0}})
    assert gap.low < -1 and gap.high > 1
    assert grounds.difference("accuracy", gap) == "difference +36.7 points [-100, +100]"
    assert f"[{gap.low:+.3g}, {gap.high:+.3g}]" in grounds.difference("bits_per_byte", gap)


def test_reproduced_needs_parameters_tokens_and_protocol_of_the_paper():
    same = {"parameters": 130_500.0, "tokens": 200 * 4096.0, "protocol": "trained"}
    assert verdict(exams(LOW, HIGH), **same).verdict == "reproduced"
    assert verdict(exams(HIGH, LOW), **same).verdict == "not reproduced"
    for other in ({"parameters": 340e6}, {"tokens": 15e9}, {"protocol": "zero-shot"}, {"protocol": ""}):
        assert verdict(exams(LOW, HIGH), **{**same, **other}).verdict == "same direction at this scale"


def test_several_claims_are_corrected_together():
    # gaps 0.1, 0.3, 0, 0.2, 0.25: p lies between 0.01 and 0.05, so one claim alone shows it and five do not
    found = exams([1.0, 1.0, 1.0, 1.0, 1.0], [1.1, 1.3, 1.0, 1.2, 1.25])
    claim = read_claim(TABLE, TableReader("x"))
    assert claims.judge([claim], found)[0].verdict == "same direction at this scale"
    assert {v.verdict for v in claims.judge([claim] * 5, found)} == {"undecided"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"better": "transformer"}, "name the same model"),
        ({"metric": "colour"}, "no metric 'colour' is known .* as accuracy or bits_per_byte"),
        ({"tokens": 0.0}, "above 0"),
        ({"margin": 0.0}, "margin must be a number above 0, not 0.0"),
        ({"margin": float("inf")}, "margin must be a number above 0, not inf"),
        ({"margin": 5, "metric": "accuracy"}, "5 points are 0.05"),
        ({"control": "retnet"}, "control and better name the same model"),
        ({"sauce": "x"}, "unknown key 'sauce'"),
        ({"text": ""}, "text is empty"),
    ],
)
def test_a_wrong_claim_is_one_sentence(change, says):
    with pytest.raises(PlanError, match=says):
        read_claim(TABLE | change, TableReader("x"))


def test_orderings_are_stated_from_five_seeds_up():
    few = pairwise.markdown(exams(LOW[:3], HIGH[:3]))
    assert "No ordering is stated: 3 shared seeds" in few and "| model |" not in few
    many = pairwise.markdown(exams(LOW, HIGH))
    assert "| retnet | transformer |  |  |" in many and "| transformer |  | retnet |  |" in many
    level = pairwise.markdown(exams(LOW, LOW))
    assert "0 show a difference, for 1 there is no difference shown" in level
    assert "| retnet |  |  | transformer |" in level


def test_the_report_shows_verdicts_orderings_and_cards(tmp_path):
    rows = synthetic.comparison(FEW, seeds=range(5))
    claim = Claim(**TABLE)
    page = report.report(rows, tmp_path, claims=[claim], only=[]).read_text()
    assert "## Claims" in page and "RetNet, Table 1" in page and "at this scale" in page
    assert "## What may be said of the order" in page
    assert page.count("**Fairness card.**") == 3  # of the three trained tasks, none of the timing
    assert "## Claims" not in report.report(rows, tmp_path, only=[]).read_text()


def test_ranks_are_compared_from_twenty_blocks_up(tmp_path):
    page = report.report(synthetic.comparison(FEW, seeds=range(5)), tmp_path / "few", only=[]).read_text()
    # language modelling, two variants of the needle, five questions
    assert "Average ranks are compared from 20 blocks" in page and "here are 8." in page
    assert not (tmp_path / "few" / "figures" / "average-ranks.png").exists()
    rows = []
    for number in range(20):
        for model, score in (("retnet", 0.9), ("transformer", 0.5), ("mamba", 0.5 if number else 0.4)):
            cell = synthetic.variant(synthetic.cell(model, "needle"), task_settings={"digits": number})
            rows += synthetic.rows_of(cell, [(None, "exact_match", score, 100, {"length": 64})])
    found = pairwise.blocks(evaluations.grouped(rows))
    assert len(found) == 20
    page = report.report(rows, tmp_path / "many", only=[]).read_text()
    assert "average-ranks.svg" in page
    assert 'average ranks over blocks" ' in (tmp_path / "many" / "report.html").read_text()


def test_more_than_twenty_models_are_ranked_and_each_is_named():
    rows = []
    for number in range(20):
        for place in range(21):
            cell = synthetic.variant(
                synthetic.cell("retnet", "needle"), variant=f"v{place}", task_settings={"digits": number}
            )
            rows += synthetic.rows_of(cell, [(None, "exact_match", place / 21, 100, {"length": 64})])
    found = evaluations.grouped(rows)
    assert "held apart by Nemenyi's test" in pairwise.markdown(found)
    with style.settings():
        drawn = rank.figure(found)
    assert {text.get_text() for text in drawn.axes[0].get_yticklabels()} == {f"v{place}" for place in range(21)}
