"""The figure of claims: a row each, on the side of zero that the claim names, with the mark of the model that does better."""

from __future__ import annotations

import dataclasses

import pytest

from results.plans.method.claims import Claim
from results.report import evaluations
from results.report.figures import catalogue, style
from results.report.figures.artists import Curves
from results.report.figures.kinds.findings import claims as figure
from results.report.figures.words import Words
from results.report.findings import claims
from tests.support import synthetic
from tests.support.figure_faults import faults

NEAR = [0.50, 0.51, 0.49, 0.505, 0.495]
CLAIM = Claim("A finds more", "a paper", "retnet", "transformer", "needle", "accuracy", margin=0.05)
LOSS = dataclasses.replace(CLAIM, metric="bits_per_byte", margin=None)


@pytest.fixture(scope="module")
def found():
    rows = []
    for model, shift in (("retnet", 0.0), ("transformer", -0.3), ("mamba", 0.01)):
        for seed, value in enumerate(NEAR):
            measured = [
                (None, "accuracy", value + shift, 200, {"length": 64}),
                (None, "bits_per_byte", 3 + shift, 200, {"length": 64}),
            ]
            rows += synthetic.rows_of(synthetic.cell(model, "needle", seed=seed), measured)
    return evaluations.grouped(rows)


def judged(found, *claimed):
    return claims.judge(claimed, found)


def test_each_claim_lies_on_its_side_and_level_is_hollow(found):
    against = dataclasses.replace(CLAIM, better="transformer", worse="retnet")
    level = dataclasses.replace(CLAIM, better="mamba", worse="retnet")
    verdicts = judged(found, CLAIM, against, level)
    one, two, three = figure.in_one_unit(verdicts)
    assert one.mean == pytest.approx(30) and two.mean == pytest.approx(-30) and three.mean == pytest.approx(1)
    assert one.low <= one.mean <= one.high and one.margin == pytest.approx(5)
    with style.settings():
        drawn = figure.figure(verdicts)
        assert faults(drawn) == []
    (panel,) = drawn.axes
    marks = {
        float(row[0, 1]): m.look for c in panel.artists if isinstance(c, Curves) for m in c.marks for row in m.rows
    }
    assert marks[2.0]["color"] == "white" and marks[0.0] == marks[1.0] != marks[2.0]
    said = [word.text for artist in panel.artists if isinstance(artist, Words) for word in artist.words]
    assert said == ["as claimed", "opposite", "level"]


def test_of_a_loss_less_is_to_the_right(found):
    worse = dataclasses.replace(LOSS, better="transformer", worse="retnet")
    one, two = figure.in_one_unit(judged(found, worse, LOSS))
    assert one.mean == pytest.approx(0.3) and two.mean == pytest.approx(-0.3)


def test_units_are_not_mixed_and_one_claim_is_no_figure(found):
    assert figure.in_one_unit(judged(found, CLAIM, LOSS)) == []
    mixed = judged(found, CLAIM, LOSS, CLAIM)
    assert [one.verdict.claim.metric for one in figure.in_one_unit(mixed)] == ["accuracy", "accuracy"]
    with style.settings():
        note = figure.figure(mixed).get_layout_engine().heading[1].get_text()
    assert "1 of 3 claims is in the table alone: not measured, or in another unit" in note.replace("\n", " ")
    assert "claims" in [one.name for one in catalogue.asked(found, verdicts=mixed)]
    assert "claims" not in [one.name for one in catalogue.asked(found)]


def test_what_others_do_not_ask_stands_on_a_second_line():
    same = figure._labels([CLAIM, dataclasses.replace(CLAIM, worse="mamba")])
    assert same == ["retnet over transformer", "retnet over mamba"]
    other = figure._labels([CLAIM, dataclasses.replace(CLAIM, where={"length": 64})])
    assert other == ["retnet over transformer", "retnet over transformer\nlength 64"]
