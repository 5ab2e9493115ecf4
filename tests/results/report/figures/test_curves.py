"""Training curves in a report: read from files that may be damaged, pooled over seeds, drawn where there are some."""

from __future__ import annotations

import csv

import pytest

from results.report.curves import FOLDER, TRAINING, VALIDATION, CurveError, CurvePoint, path_of, read, write
from results.report.evaluations import curves, grouped
from results.report.figures import style
from results.report.figures.cast import cast
from results.report.figures.kinds import curve
from results.report.report import report
from results.rows.row import key
from tests.support import synthetic
from tests.support.figure_faults import faults

MODELS = tuple(synthetic.FAMILIES)


def kept(folder, models, seeds, steps=100):
    """Curves of a made-up comparison's trainings."""
    for rank, model in enumerate(models):
        for seed in seeds:
            points = [CurvePoint(s, TRAINING, 3.0 / s + 0.1 * rank + 0.02 * seed) for s in range(1, steps + 1)]
            write(path_of(folder, key(synthetic.cell(model, "needle", seed=seed))), points)


def test_a_curve_is_read_as_it_was_written(tmp_path):
    points = [CurvePoint(1, TRAINING, 0.1 + 0.2), CurvePoint(2, TRAINING, 1e-9), CurvePoint(2, VALIDATION, 3.5)]
    path = path_of(tmp_path, "cell")
    write(path, points)
    assert read(path) == points and path.read_text().startswith("step,split,loss\n1,training,0.30000000000000004\n")
    assert read(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    "text", ["", "step,loss\n1,2\n", "step,split,loss\n1,training\n", "step,split,loss\n1,test,2.0\n", "\x00",
             "step,split,loss\n1,training,nan\n", "step,split,loss\n0,training,1.0\n", "step,split,loss\nx,training,1.0\n"],
)  # fmt: skip
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "cell.csv"
    path.write_text(text)
    with pytest.raises(CurveError, match="cell.csv is no training curve.*delete it"):
        read(path)


def test_a_curve_is_the_mean_over_spans_and_over_seeds_that_went_to_the_end():
    steps = range(1, 101)
    two = [{s: float(s) for s in steps}, {s: float(s + 2) for s in steps}]
    pooled = curves.pooled([*two, {1: 1e9, 2: 1e9}])  # the third ended after two steps
    assert [step for step, _ in pooled] == list(range(4, 101, 4))
    assert pooled[0][1].value == 3.5 and pooled[0][1].seeds == 2  # of 1, 2, 3, 4 and of 3, 4, 5, 6
    assert pooled[0][1].low < 3.5 < pooled[0][1].high
    (alone,) = curves.pooled([{1: 2.0}])
    assert alone[1].value == 2.0 and alone[1].low is None
    sparse = curves.pooled([{10: 1.0, 1000: 2.0}])
    assert [step for step, _ in sparse] == [40, 1000]  # told about twice a second: spans without a point are left out
    assert curves.pooled([]) == []


@pytest.mark.parametrize("models", [MODELS[:3], MODELS])
def test_the_figure_has_no_faults_and_shows_who_has_a_curve(tmp_path, models):
    kept(tmp_path, models[:-1], (0, 1))
    rows = [row for row in synthetic.comparison(models, seeds=(0, 1)) if row["task"] == "needle"]
    (evaluation,) = grouped(rows)
    found = curves.of(evaluation, tmp_path)
    assert set(found) == set(models[:-1])
    shown = [model for model in evaluation.learners if model.label in found]
    with style.settings():
        drawn = curve.by_step(evaluation, found, cast(evaluation, curve.METRIC, shown), "needle: training curves")
        assert faults(drawn) == []


def test_a_report_draws_curves_where_there_are_some(tmp_path, light_fonts):
    rows = [row for row in synthetic.comparison(MODELS[:2], seeds=(0,)) if row["task"] == "needle"]
    page = report(rows, tmp_path / "without", curves=tmp_path / FOLDER).read_text()
    assert "training curves" not in page
    kept(tmp_path / FOLDER, MODELS[:2], (0,))
    page = report(rows, tmp_path / "with", curves=tmp_path / FOLDER).read_text()
    assert "![needle: training curves](figures/needle-training-curves.png)" in page
    assert "training curves" in (tmp_path / "with" / "report.html").read_text()
    with (tmp_path / "with" / "tables" / "needle-training-curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines if line["model"] == MODELS[0]] == [str(s) for s in range(4, 101, 4)]
    assert float(lines[0]["loss"]) == pytest.approx((3.0 + 1.5 + 1.0 + 0.75) / 4) and lines[0]["low"] == ""
