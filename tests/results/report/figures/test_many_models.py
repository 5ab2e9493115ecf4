"""Seventy-three made-up models in nine families: every figure names all that it draws, inside its canvas, none over another."""

from __future__ import annotations

import pytest

from results.plans.paper import Form, Printed
from results.report import evaluations
from results.report.evaluations.pooling import Point
from results.report.figures import catalogue, style
from results.report.figures.cast import FEW, cast
from results.report.figures.kinds import paper
from results.report.figures.kinds.findings import rank
from results.report.overview import figures as overview
from results.report.overview import matrix
from tests.support import figure_faults, synthetic
from tests.support.synthetic import MANY

FORM = Form("sniah", "S-NIAH", "needle", "compact_exact_match", Printed("titans_v1_table2_sniah", {"task": "S-NIAH-N"}),
            where={"variant": "s-niah-2"})  # fmt: skip


def contest(models) -> list[dict]:
    one = synthetic.cell("", "throughput", "timing")
    settings = {"level": "layer", "reference": models[0], "lengths": [64, 128]}
    found = []
    for place, model in enumerate(models):
        asked = synthetic.variant(one, model=model, kind="contest", task="contest", task_settings=settings,
                                  size={"width": 64, "depth": 2, "heads": 4}, dtype="float32", provider="auto")  # fmt: skip
        times = [(f"time_ratio{end}", 1 + place / 9 + spread) for end, spread in
                 (("", 0), ("_quantile_10", -0.1), ("_quantile_90", 0.1))]  # fmt: skip
        found += synthetic.rows_of(
            asked, [(None, metric, value, 9, {"length": n}) for n in (64, 128) for metric, value in times]
        )
    return found


def ranked(models) -> list[dict]:
    rows = []
    for number in range(20):
        for place, model in enumerate(models):
            one = synthetic.variant(synthetic.cell(model, "needle"), task_settings={"digits": number})
            rows += synthetic.rows_of(one, [(None, "exact_match", place / 50, 100, {"length": 64})])
    return rows


def unnamed(drawn, labels) -> set[str]:
    """Labels that no text inside the canvas is."""
    drawn.get_layout_engine().execute(drawn)
    edge = drawn.bbox
    inside = {
        text
        for text, box, _ in figure_faults.written(drawn)
        if edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
    }
    return set(labels) - inside


@pytest.fixture(scope="module")
def exams():
    found = evaluations.grouped(synthetic.comparison(tuple(MANY)) + contest(tuple(MANY)))
    for place, model in enumerate(MANY):
        points = [(step, Point(2 + place / 9 + 9 / step, None, None, 1, 1)) for step in (10, 20, 30)]
        found[0].curves[model] = points
    return found


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", catalogue.KINDS, ids=lambda kind: kind.name)
def test_every_model_is_named_inside_the_canvas(exams, kind):
    with style.settings():
        jobs = [job for exam in exams for job in kind.jobs(exam, catalogue._models(exam, None), ())]
        assert jobs
        drawn = jobs[0][2]()
        assert figure_faults.faults(drawn) == []
        assert unnamed(drawn, MANY) == set()


def test_every_model_of_a_papers_form_and_of_the_ranks_is_named(exams):
    with style.settings():
        needle = next(exam for exam in exams if exam.task == "needle")
        for drawn in (paper.figure(needle, FORM), rank.figure(evaluations.grouped(ranked(tuple(MANY))))):
            assert figure_faults.faults(drawn) == []
            assert unnamed(drawn, MANY) == set()


def test_the_overviews_matrix_names_all_and_its_costs_name_the_front():
    """Losses and speeds on a curve, so that many are on the front, and close to one another."""
    rows = []
    for place, model in enumerate(MANY):
        loss, speed = (
            2.0 + 0.01 * place + 0.3 * (place % 3 > 0),
            1000.0 * 1.03 ** (place * (1 if place % 3 == 0 else 0.4)),
        )
        rows += synthetic.rows_of(
            synthetic.cell(model, "language-modelling"), [(None, "bits_per_byte", loss, 1000, {"length": 512})]
        )
        rows += synthetic.rows_of(
            synthetic.cell(model, "throughput", kind="timing"),
            [(None, "training_tokens_per_second", speed, 3, {"length": 512})],
        )
    found = matrix.evidence([matrix.Source("many", "Many", "report.md", tuple(evaluations.grouped(rows)), ())])
    with style.settings():
        drawn = overview.matrix(matrix.leading(found))
        assert figure_faults.faults(drawn) == [] and unnamed(drawn, MANY) == set()
        drawn = overview.cost(found[0], found)
        assert figure_faults.faults(drawn) == []
        best = overview.front(overview._points(found[0], found, "training speed"), 1, -1)
        assert len(best) > 20 and unnamed(drawn, [model.label for model, *_ in best]) == set()


def test_the_reference_and_the_best_of_each_family_are_in_colour_and_the_rest_is_grey(exams):
    needle = next(exam for exam in exams if exam.task == "needle")
    shown = cast(needle, "compact_exact_match", needle.learners, {"beta-model-3"})
    values = {m.label: needle.point(m.label, "compact_exact_match", {}).value for m in needle.learners}
    for family in synthetic.NINE:
        own = [model for model in needle.learners if model.family == family]
        assert max(own, key=lambda model: (values[model.label], model.label)).label in shown.bright
    assert "beta-model-3" in shown.bright and len(shown.bright) <= 10
    grey = next(model for model in shown.models if model.label not in shown.bright)
    assert shown.line(grey)["color"] == style.FAINT and shown.line(grey)["marker"] == grey.look.marker
    few = cast(needle, "compact_exact_match", needle.learners[:FEW])
    assert len(few.bright) == FEW
