"""The flags of `report`: which models are in colour, and how wide figures are."""

from __future__ import annotations

import pytest

from results.report import evaluations
from results.report.figures import canvas, style
from results.report.figures.cast import cast
from runner.commands import report
from tests.support import synthetic


def test_a_model_without_rows_cannot_be_shown():
    rows = synthetic.comparison(("retnet", "mamba"))
    report.check_shown(["retnet"], rows)
    with pytest.raises(
        ValueError, match=r"--show names 'mambo', of which there are no rows \(did you mean mamba\?\)\."
    ):
        report.check_shown(["mambo"], rows)


def test_shown_models_and_a_users_own_are_in_the_focus_which_stands_first(monkeypatch):
    monkeypatch.setitem(synthetic.MODELS, "mine", ("yours", 9))
    (found,) = evaluations.grouped(
        [r for r in synthetic.comparison((*synthetic.FAMILIES, "mine")) if r["task"] == "throughput"]
    )
    shown = cast(found, "training_tokens_per_second", found.learners, {"titans-mal"})
    assert shown.models[0].label == "mine" and {"mine", "titans-mal"} <= shown.bright < {m.label for m in shown.models}
    assert shown.line(shown.models[0])["linewidth"] == style.THICK


def test_a_figure_is_as_wide_as_a_page_or_a_column():
    for width, inches in style.WIDTHS.items():
        with style.settings([], width):
            assert canvas.figure(2.0).get_figwidth() == inches
