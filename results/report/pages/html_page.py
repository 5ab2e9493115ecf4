"""The report as one HTML file that asks for nothing else: sortable tables, figures, where every number comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from results.report.evaluations import Evaluation, Model
from results.report.figures.catalogue import Drawing
from results.report.pages import provenance
from results.report.pages.template import template
from results.report.section import PageText, Section
from results.report.tables import printed, summary, table
from results.report.tables.columns import Column, Table
from results.rows import metrics


class TableNumber(NamedTuple):
    """One number of a table: its text, what it is sorted by, and the cells and words that its button shows."""

    text: str
    value: str = ""
    cells: str = ""
    what: str = ""
    hover: str = ""


def page(
    evaluations: Sequence[Evaluation],
    beside: Sequence[Evaluation | None],
    drawings: Sequence[Drawing],
    look: PageText,
    cards: Sequence[Section] = (),
) -> str:
    """The whole page, as page.html lays it out.

    `beside` holds for each evaluation its committed reference, or None; `cards` are the evaluations' fairness cards.
    """
    figures = _figures(drawings)
    leading = [one for one in figures if one["name"] == look.leading]
    rest = [one for one in figures if one not in leading]
    return template("pages/page.html").render(
        look=look,
        leading=leading,
        glance=summary.markdown(evaluations),
        note=summary.NOTE,
        evaluations=[
            _evaluation(one, other, evaluations, rest, look, cards)
            for one, other in zip(evaluations, beside, strict=True)
        ],
        chapters=[*look.findings, *(one for one in look.sections if not one.evaluation)],
        figures=[one for one in rest if not one["evaluation"]],
        missing=[one for one in drawings if one.reason],
        printed_heading=printed.HEADING,
        rows=provenance.facts(row for one in evaluations for rows in one.rows.values() for row in rows),
    )


def _evaluation(
    evaluation: Evaluation,
    beside: Evaluation | None,
    evaluations: Sequence[Evaluation],
    figures: Sequence[dict[str, Any]],
    look: PageText,
    cards: Sequence[Section],
) -> dict[str, Any]:
    """An evaluation's tables, further text and figures, and below the last evaluation of a task what papers print for it."""
    is_last = evaluation is [one for one in evaluations if one.task == evaluation.task][-1]
    return {
        "evaluation": evaluation,
        "anchor": provenance.anchor(evaluation),
        "tables": [_table(evaluation, one, beside, look) for one in table.layout(evaluation)],
        "sections": [one for one in (*cards, *look.sections) if one.evaluation == evaluation.slug],
        "figures": [one for one in figures if one["evaluation"] == evaluation.slug],
        "printed": look.printed.get(evaluation.task, "").replace("#### ", "### ") if is_last else "",
    }


def _table(evaluation: Evaluation, one: Table, beside: Evaluation | None, look: PageText) -> dict[str, Any]:
    models = table.shown(evaluation, one)
    groups = [m for m in models if not m.is_floor], [m for m in models if m.is_floor]
    below = table.notes(evaluation, one), table.conditions(evaluation, look.reference_model, beside)
    return {
        "title": f"{evaluation.title}: {one.title}",
        "heads": ["model", *(column.header for column in one.columns), "parameters", "state", "family", "provider"],
        "groups": [[_line(evaluation, model, one, beside, look) for model in group] for group in groups if group],
        "below": " ".join(filter(None, below)),
    }


def _line(
    evaluation: Evaluation, model: Model, one: Table, beside: Evaluation | None, look: PageText
) -> dict[str, Any]:
    return {
        "model": model,
        "numbers": [_number(evaluation, model, column, beside) for column in one.columns],
        "parameters": "" if model.is_floor else table.parameters(evaluation, model, look.reference_model),
        "state": "" if model.is_floor else metrics.byte_size(model.state_bytes),
        "providers": table.providers(evaluation, model),
    }


def _number(evaluation: Evaluation, model: Model, column: Column, beside: Evaluation | None) -> TableNumber:
    text = table.cell(evaluation, model, column, beside)
    origin = provenance.origin(evaluation, model, column)
    if origin is None:
        return TableNumber(text)
    point = evaluation.point(model.label, column.metric, column.where)
    value = "" if point is None else repr(float(point.value))
    return TableNumber(text, value, " ".join(origin.cells), origin.what, origin.hover)


def _figures(drawings: Sequence[Drawing]) -> list[dict[str, Any]]:
    """The figures that were drawn, each with what it shows."""
    return [
        {
            "name": one.name,
            "evaluation": one.evaluation,
            "title": one.title,
            "vector": _inline(one, f"f{number}-"),
            "files": [(path.suffix[1:].upper(), f"figures/{path.name}") for path in one.files],
        }
        for number, one in enumerate(drawings)
        if one.files
    ]


def _inline(drawing: Drawing, prefix: str) -> str:
    """A figure's vector file after its opening "<svg", its ids made its own."""
    path = next(path for path in drawing.files if path.suffix == ".svg")
    svg = path.read_text(encoding="utf-8").partition("<svg")[2]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg).replace("url(#", f"url(#{prefix}")
