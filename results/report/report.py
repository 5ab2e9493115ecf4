"""The report of a comparison: every table and figure, drawn from rows alone and tied together on one page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from results.plans.paper import Form, Printed
from results.report import html_page
from results.report.evaluations import Evaluation, grouped
from results.report.families import Families, ShownFamily
from results.report.figures import catalogue
from results.report.figures.kinds import paper, rank
from results.report.findings import pairwise
from results.report.findings.claims import Claim, judge, markdown
from results.report.section import Section
from results.report.tables import csv_file, fairness, latex, printed, summary, table
from results.rows.row import canonical

Row = dict[str, Any]
LANGUAGES = {".md": "Markdown", ".csv": "CSV", ".tex": "LaTeX"}
MATCHING = ("size", "budget", "dtype", "provider_requested", "device")

AT_A_GLANCE = f"<sub>{summary.NOTE} Conditions stand under the full tables below.</sub>"


def report(
    rows: Iterable[Row],
    out_dir: Path,
    *,
    title: str = "",
    question: str = "",
    reference: Iterable[Row] = (),
    reference_model: str = "transformer",
    only: Sequence[str] | None = None,
    show: Sequence[str] = (),
    with_printed: bool = True,
    claims: Sequence[Claim] = (),
    sections: Sequence[Section] = (),
    tables: Sequence[Printed] = (),
    forms: Sequence[Form] = (),
    families: Iterable[ShownFamily] = (),
) -> Path:
    """Write `out_dir`/report.md and report.html with tables/*.md, *.csv, *.tex and figures/*.png, *.svg, *.pdf.

    Returns the path of report.md. Equal rows give equal bytes, whatever their order. `reference` are the committed
    rows, shown in brackets beside ours where task, settings and set-up are equal; `only` limits the figures to some
    models, and `show` names models that they draw in colour however many there are; `with_printed` adds what papers print,
    or the `tables` that the plan names; `forms` are figures in papers' own form; `claims` are judged; `sections` are further
    text, each below its evaluation or at the end; `families` says the order, titles and looks of the models' families. Raises
    ValueError if there are no rows.
    """
    known_families = Families(families)
    evaluations = grouped(rows, known_families)
    if not evaluations:
        raise ValueError("There are no rows to report; run the comparison first.")
    out_dir, known = Path(out_dir), grouped(reference, known_families)
    beside = [_beside(evaluation, known) for evaluation in evaluations]
    drawings = catalogue.draw(evaluations, out_dir / "figures", only, {reference_model, *show})
    drawings += paper.draw(evaluations, forms, out_dir / "figures", {reference_model, *show})
    sections = [*sections, *printed.sections(tables)] if with_printed else sections
    said = _findings(claims, evaluations)
    shown = (*said, *_cards(evaluations, reference_model), *sections)
    theirs = _printed(evaluations) if with_printed and not tables else {}
    look = html_page.PageText(title or "Report", question, reference_model, shown, theirs)
    parts = [*_opening(evaluations, look), *map(_chapter, said)]
    if ranks := rank.draw(evaluations, out_dir / "figures"):
        drawings.append(catalogue.Drawing("average-ranks", rank.TITLE, files=ranks))
        parts.append(_image(drawings[-1], out_dir))
    for evaluation, other in zip(evaluations, beside, strict=True):
        parts += _evaluation(evaluation, _tables(evaluation, other, reference_model), sections, drawings, out_dir)
        if evaluation is [one for one in evaluations if one.task == evaluation.task][-1] and theirs.get(
            evaluation.task
        ):
            parts += _with_file(evaluation.task, theirs[evaluation.task], out_dir)
    parts += [
        *(_chapter(one) for one in sections if not one.evaluation),
        *_table_files(tables, out_dir),
        *_missing(drawings),
    ]
    page = out_dir / "report.md"
    _write(page, "\n\n".join(parts) + "\n")
    _write(out_dir / "report.html", html_page.page(evaluations, beside, drawings, look))
    _clear(out_dir, parts)
    return page


def _findings(claims: Sequence[Claim], evaluations: Sequence[Evaluation]) -> list[Section]:
    """What is said of the whole: the verdicts on claims, and which orderings hold."""
    found = [
        Section("What papers claim", markdown(judge(claims, evaluations))),
        Section("What may be said of the order", pairwise.markdown(evaluations)),
    ]
    return [section for section in found if section.text]


def _cards(evaluations: Sequence[Evaluation], reference_model: str) -> list[Section]:
    """The fairness card of every evaluation that has one."""
    cards = [
        Section("Fairness card", fairness.markdown(evaluation, reference_model), evaluation.slug)
        for evaluation in evaluations
    ]
    return [card for card in cards if card.text]


def stale_tables(
    rows: Iterable[Row], out_dir: Path, reference_model: str = "transformer", families: Iterable[ShownFamily] = ()
) -> list[str]:
    """One sentence for each table below `out_dir`, or on its page, that is missing or not what the rows give."""
    found, page = [], _text(Path(out_dir) / "report.md")
    if page is None:
        found.append("report.md is missing; redraw the report.")
    for evaluation in grouped(rows, Families(families)):
        for name, text in _tables(evaluation, None, reference_model).items():
            drawn = _text(Path(out_dir) / "tables" / name)
            if drawn is None:
                found.append(f"tables/{name} is missing; redraw the report.")
            elif drawn != text:
                found.append(f"tables/{name} is not what the rows give.")
            elif page is not None and name.endswith(".md") and text.rstrip("\n") not in page:
                found.append(f"report.md does not hold {name} as the rows give it.")
    return found


def _text(path: Path) -> str | None:
    """A page's text, with what is no UTF-8 replaced; None where there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _tables(evaluation: Evaluation, beside: Evaluation | None, reference_model: str) -> dict[str, str]:
    """An evaluation's tables by file name: Markdown, each with its conditions below it, CSV and LaTeX."""
    conditions = table.conditions(evaluation, reference_model, beside)
    parts = []
    for one in table.layout(evaluation):
        below = " ".join(filter(None, [table.notes(evaluation, one).replace("\n", "<br>\n"), conditions]))
        parts += [
            f"### {evaluation.title}: {one.title}",
            table.markdown(evaluation, one, reference_model, beside),
            f"<sub>{below}</sub>",
        ]
    if not parts:
        reasons = [f"- {model.label}: {evaluation.reason(model.label, {})}" for model in evaluation.models]
        parts = [f"### {evaluation.title}: nothing was measured", "\n".join(reasons)]
    parts += [card] if (card := fairness.markdown(evaluation, reference_model)) else []
    return {
        f"{evaluation.slug}.md": "\n\n".join(parts) + "\n",
        f"{evaluation.slug}.csv": csv_file.csv_text(evaluation, reference_model, beside),
        f"{evaluation.slug}.tex": latex.document_part(evaluation, reference_model),
    }


def _opening(evaluations: Sequence[Evaluation], look: html_page.PageText) -> list[str]:
    """Title, question, contents, and who leads at a glance."""
    parts = [f"# {look.title}", *([look.question] if look.question else []), _contents(evaluations)]
    glance = summary.markdown(evaluations)
    return [*parts, glance, AT_A_GLANCE] if glance else parts


def _contents(evaluations: Sequence[Evaluation]) -> str:
    lines = [
        f"- {evaluation.title}: {len(evaluation.learners)} models, {len(evaluation.floors)} floors"
        for evaluation in evaluations
    ]
    hidden = [evaluation for evaluation in evaluations if not evaluation.main]
    if hidden:
        lines.append(f"- {len(hidden)} of these repeat a task under another set-up; figures leave them out")
    return "\n".join(lines)


def _evaluation(
    evaluation: Evaluation,
    tables: dict[str, str],
    sections: Sequence[Section],
    drawings: Sequence[catalogue.Drawing],
    out_dir: Path,
) -> list[str]:
    """What the page says of one evaluation; writes its `tables` as files."""
    for name, text in tables.items():
        _write(out_dir / "tables" / name, text)
    links = ", ".join(f"[{LANGUAGES[Path(name).suffix]}](tables/{name})" for name in tables)
    parts = [
        f"## {evaluation.title}",
        tables[f"{evaluation.slug}.md"].rstrip("\n"),
        f"The same tables as files: {links}.",
    ]
    parts += [f"### {one.title}\n\n{one.text}" for one in sections if one.evaluation == evaluation.slug]
    return parts + [_image(drawing, out_dir) for drawing in drawings if drawing.evaluation == evaluation.slug]


def _chapter(section: Section) -> str:
    return f"## {section.title}\n\n{section.text}"


def _table_files(tables: Sequence[Printed], out_dir: Path) -> list[str]:
    """Links to the printed tables that the plan names, written as files."""
    links = []
    for name, one in printed.file_names(tables).items():
        _write(out_dir / "tables" / f"{name}.csv", printed.csv_of(one))
        links.append(f"Printed numbers as a file: [{name}.csv](tables/{name}.csv)")
    return links


def _missing(drawings: Sequence[catalogue.Drawing]) -> list[str]:
    reasons = [f"- {drawing.title}: {drawing.reason}" for drawing in drawings if drawing.reason]
    return ["## Figures not drawn", "\n".join(reasons)] if reasons else []


def _printed(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """What papers print for each task, as Markdown."""
    measured: dict[str, set[str]] = {}
    for evaluation in evaluations:
        measured.setdefault(evaluation.task, set()).update(evaluation.metrics)
    return {task: printed.section(task, found) for task, found in measured.items()}


def _with_file(task: str, section: str, out_dir: Path) -> list[str]:
    """What papers print for a task, and its numbers as a file, which this writes."""
    _write(out_dir / "tables" / f"printed-{task}.csv", printed.csv_text(task))
    return [section, f"The same as a file: [CSV](tables/printed-{task}.csv)."]


def _beside(evaluation: Evaluation, known: Sequence[Evaluation]) -> Evaluation | None:
    """The same evaluation under the same set-up in the reference."""

    def same(one: Evaluation) -> str:
        return canonical([one.task, one.version, one.settings, {name: one.setup[name] for name in MATCHING}])

    return next((other for other in known if same(other) == same(evaluation)), None)


def _clear(out_dir: Path, parts: Sequence[str]) -> None:
    """Remove tables and figures that an earlier report left and this page does not show."""
    page = "\n".join(parts)
    for path in [*(out_dir / "tables").glob("*"), *(out_dir / "figures").glob("*")]:
        if (
            path.suffix in (".md", ".csv", ".tex", ".png", ".svg", ".pdf")
            and f"{path.parent.name}/{path.name}" not in page
        ):
            path.unlink()


def _image(drawing: catalogue.Drawing, out_dir: Path) -> str:
    png, *others = (path.relative_to(out_dir).as_posix() for path in drawing.files)
    links = ", ".join(f"[{Path(name).suffix[1:].upper()}]({name})" for name in others)
    return f"![{drawing.title}]({png})\n\n{links}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
