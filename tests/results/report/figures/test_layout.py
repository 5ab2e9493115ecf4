"""No figure of a committed comparison has ink at its border, words outside the canvas, or words over words."""

from __future__ import annotations

import pytest

import baselines  # noqa: F401 - registers every model
from results.plans import reader
from results.report import evaluations
from results.report.families import Families
from results.report.figures import canvas, catalogue, frame, style
from results.report.figures.kinds import names
from results.report.figures.kinds.names import apart
from results.report.figures.words import Word, Words
from results.report.findings.claims import judge
from results.rows import store
from runner.commands.shared.comparison import families
from schema.places import ROOT
from tests.support import synthetic
from tests.support.figure_faults import faults

COMMITTED = sorted(path.parent.name for path in (ROOT / "results" / "comparisons").glob("*/*/reference"))
QUICK = ("babi-transfer", "gdn-fig3")  # the others take longer, together a minute


def figures(name: str, width: str = "page") -> dict[str, list[str]]:
    """The faults of every figure of a committed comparison, by name."""
    (folder,) = (ROOT / "results" / "comparisons").glob(f"*/{name}")
    plan = reader.load(folder / "plan.toml")
    found = evaluations.grouped(store.read(folder / "reference" / "rows.jsonl", name), Families(families()))
    verdicts = judge(plan.claims, found, plan.schedule)
    asked = catalogue.asked(found, kept={"transformer", *plan.show}, forms=plan.figures, verdicts=verdicts)
    with style.settings(width=width):
        return {one.name: faults(one.make()) for one in asked if isinstance(one, catalogue.Asked)}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMMITTED]
)
def test_no_figure_of_a_committed_comparison_has_faults(name):
    found = figures(name)
    assert found and not any(found.values()), {figure: told for figure, told in found.items() if told}


@pytest.mark.parametrize("name", ["gdn-fig3", pytest.param("overwriting", marks=pytest.mark.slow)])
def test_figures_fit_the_width_of_a_column(name):
    found = figures(name, "column")
    assert found and not any(found.values()), found


def test_models_by_ability_have_a_column_for_each_evaluation():
    rows = []
    for number in range(4):
        for place, model in enumerate(synthetic.FAMILIES):
            one = synthetic.variant(synthetic.cell(model, "needle"), task_settings={"digits": number})
            rows += synthetic.rows_of(one, [(None, "exact_match", place / 14, 100, {"length": 64})])
    (one,) = [each for each in catalogue.asked(evaluations.grouped(rows)) if each.name == "abilities"]
    with style.settings():
        drawn = one.make()
        assert faults(drawn) == []
    assert frame.ticks(drawn.axes[0].xaxis)[1] == [f"needle (digits={n})" for n in range(4)]


def test_faults_are_found():
    with style.settings():
        drawn = canvas.figure(2.0)
        panel = canvas.panel(drawn)
        words = Words([Word("one", 0.5, 0.5), Word("other", 0.52, 0.5), Word("far", 3.0, 0.5)], panel.transAxes)
        words.set_in_layout(False)
        panel.add_artist(words)
        panel.plot([0, 1], [0.5, 0.5], clip_on=False, transform=drawn.transFigure)
        told = faults(drawn)
    assert {"Ink touches the left border.", "'one' overlaps 'other'.", "'far' lies outside the canvas."} <= set(told)


def test_names_beside_points_are_not_struck_by_lines_and_stand_on_no_other():
    points = [names.Name("on the line", 0.2, 0.5, "black"), names.Name("near it", 0.2, 0.52, "black")]
    with style.settings():
        drawn = canvas.figure(2.0)
        panel = canvas.panel(drawn)
        panel.set(xlim=(0, 1), ylim=(0, 1))
        names.beside(panel, points, [(0.6, 0.9)], (1, 0), levels=[0.5])
        drawn.get_layout_engine().execute(drawn)
        (texts,) = [artist for artist in panel.artists if isinstance(artist, Words)]
        (one, other), height = [line.box for line in texts.placed()], panel.transData.transform((0.2, 0.5))[1]
    assert not one.overlaps(other) and not any(box.y0 < height < box.y1 for box in (one, other))


def test_names_beside_points_are_not_struck_by_upright_bars():
    with style.settings():
        drawn = canvas.figure(2.0)
        panel = canvas.panel(drawn)
        panel.set(xlim=(0, 1), ylim=(0, 1))
        bar = (0.23, 0.3, 0.7)
        names.beside(panel, [names.Name("beside it", 0.2, 0.5, "black")], [], (1, 0), bars=[bar])
        drawn.get_layout_engine().execute(drawn)
        (texts,) = [artist for artist in panel.artists if isinstance(artist, Words)]
        (box,) = [line.box for line in texts.placed()]
        ends = panel.transData.transform([(bar[0], bar[1]), (bar[0], bar[2])])
    assert not (box.x0 < ends[0, 0] < box.x1 and box.y0 < ends[1, 1] and ends[0, 1] < box.y1)


def test_names_keep_apart_and_near_their_lines():
    assert apart([10.0, 50.0], 5.0, 0.0, 100.0) == [10.0, 50.0]
    found = apart([50.0, 50.0, 51.0, 99.0], 10.0, 0.0, 100.0)
    assert sorted(found) == found and all(b - a >= 10 - 1e-9 for a, b in zip(found, found[1:], strict=False))
    assert min(found) >= 5 and max(found) <= 95
