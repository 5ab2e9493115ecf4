"""Committed rows beside this machine's: which are taken, and that they are marked wherever they are shown."""

from __future__ import annotations

import csv
import io

from results.report import evaluations, report
from results.rows import committed
from tests.support import synthetic

FEW = ("transformer", "deltanet", "titans-mac")


def models(rows, task):
    return {(row["model"], row.get(committed.MARK, False)) for row in rows if row["task"] == task and row["budget"]}


def test_models_that_were_not_measured_here_are_taken_and_those_that_were_are_not():
    ours = synthetic.comparison(("titans-mac",))
    rows = committed.beside(ours, synthetic.comparison(FEW))
    assert rows[: len(ours)] == ours
    for task in ("needle", "babilong", "language-modelling"):
        assert models(rows, task) == {("titans-mac", False), ("transformer", True), ("deltanet", True)}
    added = rows[len(ours) :]
    assert all(row["family"] != "floor" for row in added), "floors are computed here"
    assert "throughput" not in {row["task"] for row in added}, "seconds of another machine say nothing of a model"


def test_other_data_budgets_sizes_and_tasks_that_were_not_run_stay_out():
    ours = [row for row in synthetic.comparison(("titans-mac",)) if row["task"] == "needle"]
    reference = synthetic.comparison(FEW)
    assert {row["task"] for row in committed.beside(ours, reference)} == {"needle"}
    for change in (
        {"data_hash": "another text"}, {"size": {"width": 128, "depth": 2, "heads": 4}}, {"dtype": "bfloat16"},
        {"budget": {"steps": 400, "batch_tokens": 4096}}, {"budget": {"steps": 200, "batch_tokens": 2048}},
    ):  # fmt: skip
        other = [{**row, **change} if row["budget"] else row for row in reference]
        assert committed.beside(ours, other) == ours, change


def test_the_trials_of_a_committed_model_come_with_it():
    def trial(model):
        settings = {"model": {}, "task": synthetic.TASKS["needle"], "stage": "trial"}
        (row,) = synthetic.rows_of(synthetic.cell(model, "needle"), [(None, "validation_loss", 1.0, 40, {})])
        return {
            **row,
            "settings": settings,
            "budget": {"steps": 50, "batch_tokens": 4096},
            "where": {"full_steps": 200},
        }

    ours = [row for row in synthetic.comparison(("titans-mac",)) if row["task"] == "needle"]
    rows = committed.beside(ours, [*synthetic.comparison(FEW), trial("deltanet"), trial("titans-mac")])
    assert [row["model"] for row in rows if row["settings"].get("stage") == "trial"] == ["deltanet"]


def test_committed_models_are_marked_in_tables_figures_and_conditions(tmp_path, light_fonts):
    reference = synthetic.comparison(FEW)
    rows = committed.beside(synthetic.comparison(("titans-mac",)), reference)
    page = report.report(rows, tmp_path, reference=reference)
    text = page.read_text(encoding="utf-8")
    assert "| deltanet ° |" in text and "| titans-mac |" in text and "| titans-mac ° |" not in text
    assert "° not measured here but committed: transformer, deltanet" in text
    assert '<th scope="row">deltanet °</th>' in (tmp_path / "report.html").read_text(encoding="utf-8")
    figure = (tmp_path / "figures" / "needle-compact-exact-match-by-length.svg").read_text(encoding="utf-8")
    assert figure.count("deltanet °") >= 1 and "titans-mac °" not in figure
    lines = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "needle.csv").read_text(encoding="utf-8"))))
    status = {line["model"]: line["status"] for line in lines if line["metric"] == "compact_exact_match"}
    assert status["deltanet"] == "committed" and status["titans-mac"] == "ok"
    exam = next(one for one in evaluations.grouped(rows) if one.task == "needle")
    alone = next(one for one in evaluations.grouped(reference) if one.task == "needle")
    for model in FEW:
        assert exam.point(model, "compact_exact_match", {}) == alone.point(model, "compact_exact_match", {})


def test_a_committed_model_has_no_speed_of_training_beside_ours(tmp_path, light_fonts):
    rows = committed.beside(synthetic.comparison(("titans-mac",)), synthetic.comparison(FEW))
    rows = [row for row in rows if row["task"] != "throughput"]
    text = report.report(rows, tmp_path).read_text(encoding="utf-8")
    table = next(part for part in text.split("\n\n") if "tokens/s in training" in part)
    speed = {line.split("|")[2].strip(): line.split("|")[-2].strip() for line in table.splitlines()[2:]}
    assert speed["titans-mac"] and speed["transformer °"] == speed["deltanet °"] == ""


def test_where_nothing_committed_fits_it_is_said_what_differs():
    ours = [row for row in synthetic.comparison(("titans-mac",)) if row["task"] == "needle"]
    reference = synthetic.comparison(FEW)
    budget = {"steps": 400, "batch_tokens": 4096}
    longer = [{**row, "budget": budget} if row["budget"] else row for row in reference]
    assert committed.what_differs(ours, longer) == "needle: steps 200 here, 400 there"
    assert committed.what_differs(ours, [row for row in reference if row["task"] != "needle"]) == (
        "the committed rows train on none of these tasks"
    )
    assert committed.what_differs(ours, ours) == "every model of theirs was measured here"


def test_a_run_goes_on_from_the_committed_cells_that_it_plans_and_lacks():
    reference = synthetic.comparison(FEW)
    first, second, third, *_, failed = dict.fromkeys(row["cell"] for row in reference)
    status = {failed: "failed", third: "left out"}  # what is left out is so wherever it is measured
    reference = [row | {"status": status.get(row["cell"], row["status"])} for row in reference]
    here = [row for row in reference if row["cell"] == first]

    def planned(rows):
        """The second cell decides that there is a third."""
        return [first, second, failed, "not there", *([third] if second in {row["cell"] for row in rows} else [])]

    found = committed.fitting(here, reference, planned)
    assert [row for row in reference if row["cell"] in (second, third)] == found
    assert committed.fitting([*here, *found], reference, planned) == []
