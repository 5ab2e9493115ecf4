"""A mean is over all that it is told to be over, and two versions of an evaluation never share a table."""

from __future__ import annotations

import pytest

from results.report import evaluations
from results.report.figures import catalogue
from results.report.tables import table
from results.rows import committed, store
from results.rows import row as identity
from tests.support.synthetic import cell, rows_of

DEPTHS = (0.0, 0.5, 1.0)


def asked(model: str, seed: int = 0, lost: tuple = (), missing: tuple = ()) -> list[dict]:
    found = [(None, "accuracy", 1.0, 10, {"length": 64, "depth": d}) for d in DEPTHS if d not in missing]
    found = [(*one[:2], float("nan"), *one[3:]) if one[4]["depth"] in lost else one for one in found]
    return rows_of(cell(model, "needle", seed=seed), found)


def line(rows: list[dict], model: str) -> str:
    (exam,) = evaluations.grouped(rows)
    one, *_ = table.layout(exam)
    return next(text for text in table.markdown(exam, one).splitlines() if text.startswith(f"| {model} "))


@pytest.mark.parametrize("part", [{"lost": (1.0,)}, {"missing": (1.0,)}])
def test_a_cell_of_which_a_part_is_missing_gives_no_mean(part):
    rows = asked("retnet") + asked("mamba", **part)
    assert "| 100.0 |" in line(rows, "retnet")
    told = line(rows, "mamba")
    assert "100.0" not in told and "failed in part: 1 of 3" in told
    (exam,) = evaluations.grouped(rows)
    assert exam.point("mamba", "accuracy", {}) is None and exam.by_seed("mamba", "accuracy", {}) == {}
    assert exam.point("mamba", "accuracy", {"depth": 0.5}).value == 1.0
    assert exam.learned("mamba", "accuracy", {}) == ""


def test_a_lost_part_is_missed_where_no_other_model_has_it():
    assert "failed in part: 1 of 3 (diverged: accuracy is nan)" in line(asked("mamba", lost=(1.0,)), "mamba")


def test_what_only_some_parts_ask_is_whole_without_the_others():
    """The generated answers are marked at two depths alone; that a model diverges at the third says nothing of them."""
    generated = [(None, "generated_accuracy", 0.5, 10, {"length": 64, "depth": d}) for d in DEPTHS[:2]]
    both = [(None, "accuracy", 1.0, 10, {"length": 64, "depth": d}) for d in DEPTHS] + generated
    broken = [(*one[:2], float("nan") if one[4]["depth"] == 1.0 else one[2], *one[3:]) for one in both]
    rows = rows_of(cell("retnet", "needle"), both) + rows_of(cell("mamba", "needle"), broken)
    (exam,) = evaluations.grouped(rows)
    for model in ("retnet", "mamba"):
        assert exam.point(model, "generated_accuracy", {}).value == 0.5
    assert exam.point("retnet", "accuracy", {}).value == 1.0 and exam.point("mamba", "accuracy", {}) is None


@pytest.mark.parametrize("reason", ["diverged: no number", "diverged: accuracy is nan, generated_accuracy is inf"])
def test_a_part_lost_by_all_is_missed_in_what_its_reason_names_or_in_all(reason):
    rows = asked("retnet", lost=(1.0,))
    rows = [row | ({"reason": reason} if row["status"] == "failed" else {}) for row in rows]
    assert evaluations.grouped(rows)[0].point("retnet", "accuracy", {}) is None


def test_a_seed_of_which_a_part_is_missing_takes_no_part_and_is_told():
    rows = asked("retnet") + asked("retnet", seed=1, lost=(0.5,)) + asked("mamba")
    assert "100.0, 1 of 2 seeds failed" in line(rows, "retnet")


def under(rows: list[dict], version: int) -> list[dict]:
    return [
        {**row, "settings": {**row["settings"], "exam": version}, "cell": f"v{version}{row['cell']}"} for row in rows
    ]


def test_two_versions_of_an_exam_are_two_exams_and_the_newer_is_shown_in_figures():
    rows = asked("retnet") + under(asked("mamba"), 2)
    new, old = evaluations.grouped(rows)
    assert (new.version, old.version, new.main, old.main) == (2, 1, True, False)
    assert new.title == "needle (evaluation=2)" and "evaluation version 2" in table.conditions(new)
    assert "evaluation version" not in table.conditions(old)
    (alone,) = evaluations.grouped(under(asked("mamba"), 2))
    assert alone.title == "needle"
    assert committed.beside(under(asked("retnet"), 2), asked("mamba")) == under(asked("retnet"), 2)


def test_the_version_enters_key_and_rows_above_one_alone():
    one = cell("retnet", "needle")
    keys = [identity.key(one, "d", "c", exam=version) for version in (1, 2, 3)]
    assert len(set(keys)) == 3 and keys[0] == identity.key(one, "d", "c")
    measured = store.Measured(measurements=[(None, "accuracy", 0.5, 1, {})])
    for version, key in zip((1, 2), keys, strict=False):
        (row,) = store.rows(one, store.Identity(key, "first_generation", 1, "c", "d", exam=version), measured)
        assert row["settings"].get("exam") == (None if version == 1 else 2) and identity.key_of_row(row, {}) == key
        assert identity.key_of_row({**row, "settings": {**row["settings"], "exam": 7}}, {}) != key


def test_a_figure_that_cannot_be_drawn_costs_itself_alone(tmp_path, monkeypatch):
    def broken(*given):
        raise ValueError("no ink")

    monkeypatch.setattr(catalogue.bar, "by_state", broken)
    rows = asked("retnet") + asked("mamba")
    drawn = catalogue.draw(evaluations.grouped(rows), tmp_path)
    assert any("no ink" in one.reason for one in drawn) and any(one.files for one in drawn)
