"""The appendix for a committee: claims with their commands, minutes and intervals, from rows alone."""

from __future__ import annotations

import re

import pytest

from results.plans.method.claims import Claim
from results.report import statistics
from results.report.pages import artifact
from tests.support.synthetic import cell, rows_of

CLAIM = Claim(
    "A recalls more", "nobody", better="retnet", worse="mamba", task="needle", metric="accuracy", where={"length": 64}
)
VALUES = {"retnet": [0.7, 0.8, 0.75, 0.72, 0.78], "mamba": [0.3, 0.32, 0.28, 0.31, 0.33]}


def rows():
    found = rows_of(cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.1, 100, {"length": 64})])
    for model, values in VALUES.items():
        for seed, value in enumerate(values):
            numbers = [("accuracy", value, 100, {"length": 64}), ("training_seconds", 30.0 + seed, 1, {"tokens": 500})]
            found += rows_of(cell(model, "needle", seed=seed), [(None, *one) for one in numbers])
    return found


def page(**changes) -> str:
    asked = artifact.Asked("made-up --scale small", "Made up", "Which?", (CLAIM,), 2, is_reference=True)
    return artifact.page(asked._replace(**changes), rows())


def test_a_claim_stands_with_its_command_minutes_and_intervals():
    line = next(line for line in page().splitlines() if line.startswith("| A recalls more"))
    cells = [text.strip() for text in line.strip("|").split(" | ")]
    assert cells[1] == "`python bench.py run made-up --scale small --models retnet,mamba --tasks needle`"
    assert cells[2] == f"{2 * (30 + 31 + 32 + 33 + 34) / 2 / 60:.1f}" and cells[4] == "same direction at this scale"
    low, high = statistics.repeated(VALUES["retnet"])
    assert re.match(rf"retnet 75\.0 \[[\d.]+, [\d.]+\], again \[{100 * low:.1f}, {100 * high:.1f}\]; mamba", cells[3])
    assert "difference +44.2 points [" in cells[3]


def test_the_check_list_says_machine_versions_and_totals():
    text = page()
    for line in (
        "| machine | A CPU, 2 cores; Linux x86_64 |",
        "torch 2.0",
        "| seeds | 0, 1, 2, 3, 4 |",
        "| tokens trained on | 5,000 |",
    ):
        assert line in text
    assert f"| core hours | {2 * 160 / 3600:.2f}; not timed (trivial baselines, failures): 1 of the cells |" in text
    assert "`python bench.py verify made-up --scale small --reference`" in text
    assert "verify made-up --scale small`" in page(is_reference=False)


def test_without_claims_every_model_is_told_and_without_rows_nothing():
    text = page(claims=())
    assert "## Claims" not in text and "| retnet | 75.0 [" in text and "| mamba | 30.8 [" in text
    with pytest.raises(ValueError, match="run the comparison first"):
        artifact.page(artifact.Asked("x", "X", "", (), 1), [])


def test_equal_seeds_are_not_told_more_surely_than_their_answers_allow():
    equal = [row | {"value": 1.0} if row["metric"] == "accuracy" else row for row in rows()]
    text = artifact.page(artifact.Asked("x", "X", "", (), 1), equal)
    low = 100 * statistics.wilson(1.0, 500)[0]
    assert f"| retnet | 100.0 [{low:.1f}, 100.0], again [{low:.1f}, 100.0] |" in text
