"""The report as one HTML file that asks for nothing else: sortable tables, figures, where every number comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt

from results.report.evaluations import Exam, Model
from results.report.figures.catalogue import Drawing
from results.report.section import Section
from results.report.tables import columns, printed, summary, table
from results.report.tables.columns import Column, Table
from results.rows import metrics

FACTS = ("commit", "when", "device", "threads", "dtype", "provider", "lr", "seed", "protocol", "code_hash", "data_hash")


@dataclass(frozen=True)
class PageText:
    """What the page says beside its numbers."""

    title: str
    question: str = ""
    reference_model: str = "transformer"
    sections: tuple[Section, ...] = ()
    printed: Mapping[str, str] = field(default_factory=dict)  # what papers print, by task


class TableNumber(NamedTuple):
    """One number of a table: its text, what it is sorted by, and the cells and words that its button shows."""

    text: str
    value: str = ""
    cells: str = ""
    what: str = ""
    hover: str = ""


def page(exams: Sequence[Exam], beside: Sequence[Exam | None], drawings: Sequence[Drawing], look: PageText) -> str:
    """The whole page, as page.html lays it out. `beside` holds for each exam the same one in the committed reference, or None."""
    return _template().render(
        look=look,
        glance=summary.markdown(exams),
        note=summary.NOTE,
        exams=[_exam(one, other, exams, drawings, look) for one, other in zip(exams, beside, strict=True)],
        chapters=[one for one in look.sections if not one.exam],
        figures=_figures(drawings, ""),
        missing=[one for one in drawings if one.reason],
        printed_heading=printed.HEADING,
        rows=_provenance(exams),
    )


@cache
def _template() -> Template:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"markdown": markdown, "anchor": _anchor}
    return made.get_template("page.html")


def markdown(text: str) -> str:
    """Markdown as HTML; raw HTML in it is shown, not obeyed."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _exam(
    exam: Exam, beside: Exam | None, exams: Sequence[Exam], drawings: Sequence[Drawing], look: PageText
) -> dict[str, Any]:
    """An exam's tables, further text and figures, and below the last exam of a task what papers print for it."""
    is_last = exam is [one for one in exams if one.task == exam.task][-1]
    return {
        "exam": exam,
        "tables": [_table(exam, one, beside, look) for one in table.layout(exam)],
        "sections": [one for one in look.sections if one.exam == exam.slug],
        "figures": _figures(drawings, exam.slug),
        "printed": look.printed.get(exam.task, "").replace("#### ", "### ") if is_last else "",
    }


def _table(exam: Exam, one: Table, beside: Exam | None, look: PageText) -> dict[str, Any]:
    models = table.shown(exam, one)
    groups = [m for m in models if not m.is_floor], [m for m in models if m.is_floor]
    below = table.notes(exam, one), table.conditions(exam, look.reference_model, beside)
    return {
        "title": f"{exam.title}: {one.title}",
        "heads": ["model", *(column.header for column in one.columns), "parameters", "state", "family", "provider"],
        "groups": [[_line(exam, model, one, beside, look) for model in group] for group in groups if group],
        "below": " ".join(filter(None, below)),
    }


def _line(exam: Exam, model: Model, one: Table, beside: Exam | None, look: PageText) -> dict[str, Any]:
    return {
        "model": model,
        "numbers": [_number(exam, model, column, beside) for column in one.columns],
        "parameters": "" if model.is_floor else table.parameters(exam, model, look.reference_model),
        "state": "" if model.is_floor else metrics.byte_size(model.state_bytes),
        "providers": table.providers(exam, model),
    }


def _number(exam: Exam, model: Model, column: Column, beside: Exam | None) -> TableNumber:
    text = table.cell(exam, model, column, beside)
    point = exam.point(model.label, column.metric, column.where)
    rows = [row for row in exam.rows.get(model.label, []) if point is None or _counts(row, column)]
    if not rows:
        return TableNumber(text)
    what = ", ".join(filter(None, [model.label, metrics.words(column.metric), columns.where_text(column.where)]))
    if point is not None:
        spread = f"; 95 % interval {point.low:.6g} to {point.high:.6g}" if point.low is not None else ""
        what += f": {point.value:.6g} from {point.count:,} items, {point.seeds} seed(s){spread}"
    cells = " ".join(dict.fromkeys(row["cell"] for row in rows))
    days = sorted({row["when"][:10] for row in rows})
    hover = f"commit {rows[0]['commit'][:10] or 'unknown'}, {days[0]}; click for all"
    return TableNumber(text, "" if point is None else repr(float(point.value)), cells, what, hover)


def _counts(row: dict[str, Any], column: Column) -> bool:
    return row["metric"] == column.metric and column.where.items() <= row["where"].items()


def _provenance(exams: Sequence[Exam]) -> dict[str, dict[str, Any]]:
    """What stands behind each cell's rows, by key."""
    found: dict[str, dict[str, Any]] = {}
    for exam in exams:
        for row in sorted((r for rows in exam.rows.values() for r in rows), key=lambda r: (r["cell"], r["when"])):
            facts = {name: row[name] for name in FACTS} | {"settings": row["settings"], **row["versions"]}
            found[row["cell"]] = {**facts, "commit": row["commit"] + (" with changes" if row["dirty"] else "")}
    return found


def _figures(drawings: Sequence[Drawing], exam: str) -> list[dict[str, Any]]:
    """The figures that were drawn of an exam, by its slug; with "" those of all together."""
    numbered = [(number, one) for number, one in enumerate(drawings) if one.files and one.exam == exam]
    return [{"title": one.title, "vector": _inline(one, f"f{number}-")} for number, one in numbered]


def _inline(drawing: Drawing, prefix: str) -> str:
    """A figure's vector file after its opening "<svg", its ids made its own."""
    path = next(path for path in drawing.files if path.suffix == ".svg")
    svg = path.read_text(encoding="utf-8").partition("<svg")[2]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg).replace("url(#", f"url(#{prefix}")
