"""The report of a comparison: every table and figure, drawn from rows alone and tied together on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from results.plans.method.claims import Claim
from results.plans.method.looks import Schedule
from results.plans.paper import Form, Printed
from results.report.evaluations import Evaluation, grouped
from results.report.evaluations import curves as training_curves
from results.report.families import Families, ShownFamily
from results.report.figures import catalogue
from results.report.figures.cast import FEW
from results.report.figures.catalogue import Drawing
from results.report.findings import added_memory, pairwise
from results.report.findings.claims import ClaimVerdict, judge, markdown
from results.report.pages import html_page, markdown_page, opening
from results.report.section import PageText, Section
from results.report.tables import csv_file, fairness, latex, printed, table, wide_csv
from results.rows.row import canonical

Row = dict[str, Any]
MATCHING = ("size", "budget", "dtype", "provider_requested", "device")


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
    schedule: Schedule | None = None,
    sections: Sequence[Section] = (),
    tables: Sequence[Printed] = (),
    forms: Sequence[Form] = (),
    opens_with: str = "",
    families: Iterable[ShownFamily] = (),
    width: str = "page",
    curves: Path | None = None,
) -> Path:
    """Write `out_dir`/report.md and report.html with tables/*.md, *.csv, *.tex and figures/*.png, *.svg, *.pdf.

    Returns the path of report.md. Equal rows give equal bytes, whatever their order. `reference` are the committed
    rows, shown in brackets beside ours where task, settings and set-up are equal; `only` limits the figures to some
    models, and `show` names models that they draw in colour however many there are; `with_printed` adds what papers print,
    or the `tables` that the plan names; `forms` are figures in papers' own form; `claims` are judged, at the looks of
    `schedule`; `sections` are further text, each below its evaluation or at the end; `families` says the order, titles and
    looks of the models' families; `width` of the figures is a page's or a column's; `curves` is the folder of the cells'
    training curves; `opens_with` names the figure that stands first. Raises ValueError if there are no rows, or a curve
    that cannot be read.
    """
    known_families = Families(families)
    evaluations = grouped(rows, known_families)
    if not evaluations:
        raise ValueError("There are no rows to report; run the comparison first.")
    for evaluation in evaluations if curves is not None else ():
        evaluation.curves = training_curves.of(evaluation, curves)
    out_dir, known = Path(out_dir), grouped(reference, known_families)
    beside = [_beside(evaluation, known) for evaluation in evaluations]
    verdicts, kept = judge(claims, evaluations, schedule), in_colour({reference_model, *show}, claims)
    drawings = catalogue.draw(evaluations, out_dir / "figures", only, kept, forms, width, verdicts)
    drawings += _missed(opens_with, drawings)
    look = PageText(
        title or "Report",
        question,
        reference_model,
        findings=_findings(verdicts, evaluations, schedule),
        sections=(*sections, *added_memory.sections(evaluations), *(printed.sections(tables) if with_printed else [])),
        printed=_printed(evaluations) if with_printed and not tables else {},
        told=opening.sentences(verdicts, evaluations),
        leading=opening.leading(drawings, verdicts, forms, evaluations, opens_with),
    )
    _write_all(out_dir, evaluations, beside, drawings, look, tables)
    return out_dir / "report.md"


def _write_all(
    out_dir: Path,
    evaluations: Sequence[Evaluation],
    beside: Sequence[Evaluation | None],
    drawings: Sequence[Drawing],
    look: PageText,
    tables: Sequence[Printed],
) -> None:
    """The tables and both pages of a report, in place of those of an earlier one."""
    drawn = {
        one.slug: _tables(one, other, look.reference_model) | _curve_files(one)
        for one, other in zip(evaluations, beside, strict=True)
    }
    files = {name: text for own in drawn.values() for name, text in own.items()} | _printed_files(look, tables)
    for name, text in files.items():
        _write(out_dir / "tables" / name, text)
    page = markdown_page.page(evaluations, drawn, drawings, look, list(_printed_files(PageText(""), tables)))
    _write(out_dir / "report.md", page)
    cards = _cards(evaluations, look.reference_model)
    _write(out_dir / "report.html", html_page.page(evaluations, beside, drawings, look, cards))
    _clear(out_dir, page)


def in_colour(named: Collection[str], claims: Sequence[Claim]) -> set[str]:
    """Models that figures draw in colour however many they show: those named, and of the claims the most asked about."""
    asked = Counter(model for claim in claims for model in (claim.better, claim.worse) if model not in named)
    return {*named, *(model for model, _ in asked.most_common(max(0, FEW - len(named))))}


def _missed(opens_with: str, drawings: Sequence[Drawing]) -> list[Drawing]:
    """The figure that the page is to open with as one that is not drawn, where there is none of its name."""
    if not opens_with or opens_with in [one.name for one in drawings]:
        return []
    return [
        Drawing(opens_with, opens_with, reason="the plan opens with it, and these rows give no figure of this name")
    ]


def _printed_files(look: PageText, tables: Sequence[Printed]) -> dict[str, str]:
    """Printed numbers as files: those of the tasks, and of the tables that the plan names."""
    found = {f"printed-{task}.csv": printed.csv_text(task) for task, section in look.printed.items() if section}
    return found | {f"{name}.csv": printed.csv_of(one) for name, one in printed.file_names(tables).items()}


def _curve_files(evaluation: Evaluation) -> dict[str, str]:
    """The drawn training curves as a table, by file name, where there are any."""
    name = f"{evaluation.slug}-{markdown_page.CURVES}"
    return {name: training_curves.csv_text(evaluation.curves)} if evaluation.curves else {}


def _findings(
    verdicts: Sequence[ClaimVerdict], evaluations: Sequence[Evaluation], schedule: Schedule | None
) -> tuple[Section, ...]:
    """What is said of the whole: the verdicts on claims, and which orderings hold."""
    found = [
        Section("Claims", markdown(verdicts, schedule)),
        Section("What may be said of the order", pairwise.markdown(evaluations, schedule)),
    ]
    return tuple(section for section in found if section.text)


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
    """An evaluation's tables by file name: Markdown, each with its conditions below it, CSV, LaTeX, and as in LaTeX a CSV."""
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
        f"{evaluation.slug}-wide.csv": wide_csv.csv_text(evaluation),
    }


def _printed(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """What papers print for each task, as Markdown."""
    measured: dict[str, set[str]] = {}
    for evaluation in evaluations:
        measured.setdefault(evaluation.task, set()).update(evaluation.metrics)
    return {task: printed.section(task, found) for task, found in measured.items()}


def _beside(evaluation: Evaluation, known: Sequence[Evaluation]) -> Evaluation | None:
    """The same evaluation under the same set-up in the reference."""

    def same(one: Evaluation) -> str:
        return canonical([one.task, one.version, one.settings, {name: one.setup[name] for name in MATCHING}])

    return next((other for other in known if same(other) == same(evaluation)), None)


def _clear(out_dir: Path, page: str) -> None:
    """Remove tables and figures that an earlier report left and this page does not show."""
    for path in [*(out_dir / "tables").glob("*"), *(out_dir / "figures").glob("*")]:
        is_ours = path.suffix in (".md", ".csv", ".tex", ".png", ".svg", ".pdf")
        if is_ours and f"{path.parent.name}/{path.name}" not in page:
            path.unlink()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
