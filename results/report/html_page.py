"""The report as one HTML file that asks for nothing else: sortable tables, figures, where every number comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from results.report.evaluations import Exam, Model
from results.report.figures.catalogue import Drawing
from results.report.section import Section
from results.report.tables import contest_table, printed, summary, table
from results.report.tables.table import Column, Table
from results.rows import metrics

FOLDER = Path(__file__).resolve().parent
FACTS = ("commit", "when", "device", "threads", "dtype", "provider", "lr", "seed", "protocol", "code_hash", "data_hash")


@dataclass(frozen=True)
class Look:
    """What the page says beside its numbers."""

    title: str
    question: str = ""
    reference_model: str = "transformer"
    sections: tuple[Section, ...] = ()
    with_printed: bool = True


def page(exams: Sequence[Exam], beside: Sequence[Exam | None], drawings: Sequence[Drawing], look: Look) -> str:
    """The whole page. `beside` holds for each exam the same one in the committed reference, or None."""
    body = [f"<h1>{escape(look.title)}</h1>", f"<p>{escape(look.question)}</p>", _contents(exams, look)]
    if glance := summary.markdown(exams):
        body += ['<h2 id="at-a-glance">At a glance</h2>', _scrolling("At a glance", markdown(glance))]
        body += [f'<p class="conditions">{escape(summary.NOTE)}</p>']
    figures = {drawing.name: number for number, drawing in enumerate(drawings)}
    for exam, other in zip(exams, beside, strict=True):
        body += [f'<section aria-labelledby="{exam.slug}"><h2 id="{exam.slug}">{escape(exam.title)}</h2>']
        layout = (contest_table if exam.is_contest else table).layout(exam)
        body += [_table(exam, one, other, look) for one in layout] or ["<p>Nothing was measured.</p>"]
        body += [_section(one, 3) for one in look.sections if one.exam == exam.slug]
        body += [_figure(drawing, figures[drawing.name]) for drawing in drawings if drawing.exam == exam.slug]
        if look.with_printed and exam is [one for one in exams if one.task == exam.task][-1]:
            measured = {metric for one in exams if one.task == exam.task for metric in one.metrics}
            text = markdown(printed.section(exam.task, measured)).replace("h4>", "h3>")
            body += [_scrolling(printed.HEADING, text)] if text else []
        body.append("</section>")
    body += [_section(one, 2) for one in look.sections if not one.exam]
    body += [_figure(drawing, figures[drawing.name]) for drawing in drawings if drawing.files and not drawing.exam]
    missing = [f"<li>{escape(f'{one.title}: {one.reason}')}</li>" for one in drawings if one.reason]
    body += ["<h2>Figures not drawn</h2>", f"<ul>{''.join(missing)}</ul>"] if missing else []
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    parts = {"TITLE": escape(look.title), "BODY": "\n".join(body), "ROWS": _provenance(exams)}
    return re.sub(r"@@(TITLE|BODY|ROWS)@@", lambda found: parts[found.group(1)], template)


def markdown(text: str) -> str:
    """Markdown as HTML; raw HTML in it is shown, not obeyed."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def _contents(exams: Sequence[Exam], look: Look) -> str:
    links = [(exam.slug, exam.title) for exam in exams]
    links += [(_anchor(one.title), one.title) for one in look.sections if not one.exam]
    items = "".join(f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _section(section: Section, level: int) -> str:
    anchor = f' id="{_anchor(section.title)}"' if level == 2 else ""
    heading = f"<h{level}{anchor}>{escape(section.title)}</h{level}>"
    return heading + _scrolling(section.title, markdown(section.text))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _table(exam: Exam, one: Table, beside: Exam | None, look: Look) -> str:
    models = table.shown(exam, one)
    heads = ["model", *(column.header for column in one.columns), "parameters", "state", "family", "provider"]
    head = "".join(f'<th scope="col"><button type="button">{escape(text)}</button></th>' for text in heads)
    bodies = [
        "<tbody>" + "".join(_line(exam, model, one, beside, look) for model in group) + "</tbody>"
        for group in ([m for m in models if not m.is_floor], [m for m in models if m.is_floor])
        if group
    ]
    title = f"{exam.title}: {one.title}"
    made = f'<table aria-label="{escape(title)}"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'
    notes = (contest_table if exam.is_contest else table).notes(exam, one)
    below = " ".join(filter(None, [notes, table.conditions(exam, look.reference_model, beside)]))
    return f'<h3>{escape(title)}</h3>{_scrolling(title, made)}<p class="conditions">{escape(below)}</p>'


def _line(exam: Exam, model: Model, one: Table, beside: Exam | None, look: Look) -> str:
    parameters = "" if model.is_floor else table.parameters(exam, model, look.reference_model)
    state = "" if model.is_floor else metrics.byte_size(model.state_bytes)
    cells = [
        f'<th scope="row">{escape(model.title)}</th>',
        *(_cell(exam, model, column, beside) for column in one.columns),
        f'<td class="number" data-value="{model.parameters or ""}">{escape(parameters)}</td>',
        f'<td class="number" data-value="{model.state_bytes or ""}">{escape(state)}</td>',
        f'<td data-value="{model.order}">{escape(model.group)}</td>',
        f"<td>{escape(table.providers(exam, model))}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(exam: Exam, model: Model, column: Column, beside: Exam | None) -> str:
    text = escape(table.cell(exam, model, column, beside))
    point = exam.point(model.label, column.metric, column.where)
    rows = [row for row in exam.rows.get(model.label, []) if point is None or _counts(row, column)]
    if not rows:
        return f'<td class="number" data-value="">{text}</td>'
    what = ", ".join(filter(None, [model.label, metrics.words(column.metric), table.where_text(column.where)]))
    if point is not None:
        spread = f"; 95 % interval {point.low:.6g} to {point.high:.6g}" if point.low is not None else ""
        what += f": {point.value:.6g} from {point.count:,} items, {point.seeds} seed(s){spread}"
    cells = " ".join(dict.fromkeys(row["cell"] for row in rows))
    days = sorted({row["when"][:10] for row in rows})
    hover = f"commit {rows[0]['commit'][:10] or 'unknown'}, {days[0]}; click for all"
    button = f'<button type="button" data-cells="{cells}" data-what="{escape(what)}" title="{hover}">{text}</button>'
    return f'<td class="number" data-value="{"" if point is None else repr(float(point.value))}">{button}</td>'


def _counts(row: dict[str, Any], column: Column) -> bool:
    return row["metric"] == column.metric and column.where.items() <= row["where"].items()


def _provenance(exams: Sequence[Exam]) -> str:
    """What stands behind each cell's rows, by key, as JSON that may stand in a script element."""
    found: dict[str, dict[str, Any]] = {}
    for exam in exams:
        for row in sorted((r for rows in exam.rows.values() for r in rows), key=lambda r: (r["cell"], r["when"])):
            facts = {name: row[name] for name in FACTS} | {"settings": row["settings"], **row["versions"]}
            found[row["cell"]] = {**facts, "commit": row["commit"] + (" with changes" if row["dirty"] else "")}
    return json.dumps(found, sort_keys=True, ensure_ascii=False).replace("<", "\\u003c")


def _figure(drawing: Drawing, number: int) -> str:
    vector = next(path for path in drawing.files if path.suffix == ".svg")
    svg = _inline(vector.read_text(encoding="utf-8"), drawing.title, f"f{number}-")
    return f"<figure>{svg}<figcaption>{escape(drawing.title)}</figcaption></figure>"


def _inline(svg: str, title: str, prefix: str) -> str:
    """A figure's vector file as an element of the page, its ids made its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg).replace("url(#", f"url(#{prefix}")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def _scrolling(label: str, content: str) -> str:
    """Content that scrolls sideways by itself where the screen is narrow."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'
