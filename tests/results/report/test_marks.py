"""What a mark is held against: the best of trivial baselines and shortcuts, never a reference, nor who answered a part."""

from __future__ import annotations

import pytest

from results.report import evaluations
from results.report.figures import artists, style
from results.report.figures.cast import cast
from results.report.figures.kinds import bar
from results.report.figures.kinds import line as line_figure
from results.report.figures.words import Words
from results.report.pages import html_page
from results.report.tables import csv_file, summary, table
from results.rows import readers
from tests.support.synthetic import cell, rows_of


def exam_of(floors: dict[str, float], models: dict[str, float], **where) -> evaluations.EvaluationBatch:
    """One accuracy over 400 questions for each trivial baseline and model."""
    rows = rows_of(cell("", "needle", "floors"), [(n, "accuracy", v, 400, where) for n, v in floors.items()])
    for model, value in models.items():
        rows += rows_of(cell(model, "needle"), [(None, "accuracy", value, 400, where)])
    (exam,) = evaluations.grouped(rows)
    return exam


MODELS = {"transformer": 0.9, "retnet": 0.6, "mamba": 0.3}
FLOORS = {"floor: guess": 0.1, "cheat: last value": 0.57, "cheat: first value": 0.4, "reference: copy": 1.0}


def test_the_mark_means_above_floors_and_shortcuts():
    exam = exam_of({**FLOORS, "cheat: last value": 0.5}, MODELS)
    assert [exam.learned(name, "accuracy", {}) for name in MODELS] == ["yes", "yes", "no"]
    assert exam_of(FLOORS, MODELS).learned("retnet", "accuracy", {}) == "no"  # better, but not by its interval
    assert exam_of({"floor: guess": 0.1}, MODELS).learned("mamba", "accuracy", {}) == "yes"
    assert exam_of({"cheat: last value": 0.57}, MODELS).learned("mamba", "accuracy", {}) == "no"


def test_a_reference_holds_nobody_back():
    exam = exam_of(FLOORS, MODELS)
    assert exam.best_reference("accuracy", {}) == ("reference: copy", 1.0)
    assert exam.bar("accuracy", {}) == ("cheat: last value", 0.57)
    assert exam.best_floor("accuracy", {}) == ("guess", 0.1)
    assert exam_of({"reference: copy": 1.0}, MODELS).learned("transformer", "accuracy", {}) == ""


@pytest.mark.parametrize(
    "name", ["cheat: copy the only number", "cheat: copy every number", "cheat: first value of the key"]
)
def test_rows_from_before_references_were_told_from_cheats_are_references(name):
    exam = exam_of({"floor: guess": 0.1, name: 1.0}, MODELS)
    assert exam.learned("mamba", "accuracy", {}) == "yes" and exam.best_shortcut("accuracy", {}) is None
    assert exam.best_reference("accuracy", {}) == (name.replace("cheat", "reference"), 1.0)


def test_who_answered_a_part_has_no_mean_over_the_whole():
    asked = [{"question": q} for q in ("qa1", "qa2")]
    floors = [("cheat: last label", "accuracy", v, 9, w) for v, w in zip((0.4, 0.2), asked, strict=True)]
    floors += [("cheat: of qa2 alone", "accuracy", 0.9, 9, asked[1])]
    rows = rows_of(cell("", "babilong", "floors"), floors)
    rows += rows_of(cell("retnet", "babilong"), [(None, "accuracy", 0.5, 900, w) for w in asked])
    (exam,) = evaluations.grouped(rows)
    assert exam.best_shortcut("accuracy", {}) == ("cheat: last label", pytest.approx(0.3))
    assert exam.best_shortcut("accuracy", asked[1]) == ("cheat: of qa2 alone", 0.9)
    assert exam.learned("retnet", "accuracy", {}) == "yes" and exam.learned("retnet", "accuracy", asked[1]) == "no"


def test_notes_say_what_the_mark_is_held_against():
    for floors, said in (
        (FLOORS, "the best trivial baseline and the best shortcut heuristic"),
        ({"floor: guess": 0.1}, "the best trivial baseline"),
    ):
        exam = exam_of(floors, MODELS)
        assert f"✓ better than {said} by its 95 % confidence interval" in table.notes(exam, table.layout(exam)[0])
    assert "better than the best trivial baseline and the best shortcut heuristic" in summary.NOTE


def test_the_glance_has_a_line_for_shortcuts():
    lines = summary.markdown([exam_of(FLOORS, MODELS)]).splitlines()
    assert lines[-2:] == [
        "| *trivial baselines* | *best trivial baseline* | 10.0 (guess) |  |  |",
        "| *shortcut heuristics* | *best shortcut heuristic* | 57.0 (cheat: last value) |  |  |",
    ]
    costs = "| 131,400 | 4.0 KiB |"
    told = next(line for line in lines if "retnet" in line)  # no mark: not above the shortcut
    assert f"| <u>60.0 ± 4.8</u> {costs}" in told
    assert "*shortcut heuristics*" not in summary.markdown([exam_of({"floor: guess": 0.1}, MODELS)])
    page = html_page.page([exam_of(FLOORS, MODELS)], [None], [], html_page.PageText("x"))
    assert summary.NOTE in page


def test_the_csv_names_both_lines():
    exam = exam_of(FLOORS, MODELS)
    head, *lines = csv_file.csv_text(exam).splitlines()
    names = head.split(",")
    first = dict(zip(names, lines[0].split(","), strict=True))
    assert [first[f"best_{kind}"] for kind in ("floor", "shortcut")] == ["guess", "cheat: last value"]
    assert [first[f"best_{kind}_value"] for kind in ("floor", "shortcut")] == ["0.1", "0.57"]


def _drawn(figure) -> dict[tuple, list[float]]:
    """Heights of the grey lines by their dashes."""
    looks = {kind: look["linestyle"] for kind, look in line_figure.LINES.items()}
    found = {}
    lines = [(line.get_color(), line._unscaled_dash_pattern, line.get_ydata()) for line in figure.axes[0].get_lines()]
    for curves in figure.axes[0].findobj(artists.Curves):
        lines += [(look["color"], look["linestyle"], rows[0][:, 1]) for look, rows in curves.strokes]
    for colour, own, ys in lines:
        for kind, dashes in looks.items():
            if colour == style.FLOOR and own == dashes:
                found[kind] = [round(float(y), 6) for y in ys]
    return found


def test_figures_draw_a_line_for_each_kind():
    rows = rows_of(
        cell("", "needle", "floors"),
        [(n, "accuracy", v, 400, {"length": length}) for n, v in FLOORS.items() for length in (64, 128)],
    )
    rows += rows_of(cell("mamba", "needle"), [(None, "accuracy", 0.3, 400, {"length": n}) for n in (64, 128)])
    (exam,) = evaluations.grouped(rows)
    shown = cast(exam, "accuracy", exam.learners)
    with style.settings():
        state = bar.by_state(exam, "accuracy", shown, "x")
        lengths = line_figure.by_length(exam, "accuracy", shown, "x")
    wanted = {readers.FLOOR: [10.0] * 2, readers.SHORTCUT: [57.0] * 2, readers.REFERENCE: [100.0] * 2}
    assert _drawn(state) == wanted and _drawn(lengths) == wanted
    said = {word.text for artist in state.axes[-1].findobj(Words) for word in artist.words}
    assert said >= {"best trivial baseline: guess", "best shortcut heuristic: last value", "best reference: copy"}


def test_kinds_are_told_by_the_beginning_of_a_name():
    assert [readers.kind(readers.label(name)) for name in FLOORS] == ["floor", "shortcut", "shortcut", "reference"]
    assert readers.label("floor: guess") == "guess" and readers.label("cheat: x") == "cheat: x"


def test_a_trivial_baseline_far_off_is_told_in_words_and_leaves_the_axis_to_the_models():
    floors = {"floor: uniform": 8.0, "floor: unigram": 4.4}
    rows = rows_of(cell("", "needle", "floors"), [(n, "bits_per_byte", v, 400, {}) for n, v in floors.items()])
    rows += rows_of(cell("retnet", "needle"), [(None, "bits_per_byte", 3.9, 400, {})])
    (exam,) = evaluations.grouped(rows)
    drawn = bar.by_model(exam, "bits_per_byte", cast(exam, "bits_per_byte", exam.learners), "losses")
    (panel,) = drawn.axes
    written = [word.text for words in drawn.findobj(Words) for word in words.words]
    assert panel.get_xlim()[1] < 5 and "unigram 4.400" in written and "uniform 8.000" not in written
    assert any("beyond the axis: uniform 8.000" in text.get_text() for text in drawn.texts)
