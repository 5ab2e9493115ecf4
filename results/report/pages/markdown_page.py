"""The report as one Markdown page: what came out, the figure that shows it, one table; everything else behind headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from results.report.evaluations import Evaluation
from results.report.figures.catalogue import Drawing
from results.report.pages import provenance
from results.report.section import PageText, Section
from results.report.tables import summary
from schema.words import several

CURVES = "training-curves.csv"
LANGUAGES = {"-wide.csv": "CSV with a line a model", ".md": "Markdown", ".csv": "CSV", ".tex": "LaTeX"}
AT_A_GLANCE = f"<sub>{summary.NOTE} Conditions stand under the full tables below.</sub>"


def page(
    evaluations: Sequence[Evaluation],
    tables: Mapping[str, Mapping[str, str]],
    drawings: Sequence[Drawing],
    look: PageText,
    printed_files: Sequence[str] = (),
) -> str:
    """The whole page. `tables` holds each evaluation's tables by slug and file name, `printed_files` those of papers."""
    leading = next((one for one in drawings if one.files and one.name == look.leading), None)
    rest = [one for one in drawings if one is not leading]
    parts = [*_opening(evaluations, look, leading), *map(_chapter, look.findings)]
    parts += [_image(one) for one in rest if one.files and not one.evaluation]
    for evaluation in evaluations:
        parts += _evaluation(evaluation, tables[evaluation.slug], look.sections, rest)
        is_last = evaluation is [one for one in evaluations if one.task == evaluation.task][-1]
        if is_last and (section := look.printed.get(evaluation.task)):
            parts += [section, f"The same as a file: [CSV](tables/printed-{evaluation.task}.csv)."]
    parts += [_chapter(one) for one in look.sections if not one.evaluation]
    parts += [f"Printed numbers as a file: [{name}](tables/{name})" for name in printed_files]
    return "\n\n".join([*parts, *_missing(drawings)]) + "\n"


def _opening(evaluations: Sequence[Evaluation], look: PageText, leading: Drawing | None) -> list[str]:
    """Title and question, a sentence a claim, the figure that shows it, the one table, and what follows."""
    parts = [f"# {look.title}", *([look.question] if look.question else [])]
    parts += ["\n".join(f"- {sentence}" for sentence in look.told)] if look.told else []
    parts += [_image(leading)] if leading else []
    glance = summary.markdown(evaluations)
    parts += [glance, AT_A_GLANCE] if glance else []
    return [*parts, _contents(evaluations)]


def _contents(evaluations: Sequence[Evaluation]) -> str:
    lines = [f"- {one.title}: {_held(one)}" for one in evaluations]
    hidden = [evaluation for evaluation in evaluations if not evaluation.main]
    if hidden:
        lines.append(f"- {len(hidden)} of these repeat a task under another set-up; figures leave them out")
    return "\n".join(["What follows:", "", *lines])


def _held(evaluation: Evaluation) -> str:
    """How many models an evaluation holds, and how many others, if any."""
    models, others = several(len(evaluation.learners), "model"), len(evaluation.floors)
    beside = (
        "trivial baseline, heuristic or reference" if others == 1 else "trivial baselines, heuristics and references"
    )
    return f"{models}, {others} {beside}" if others else models


def _evaluation(
    evaluation: Evaluation, tables: Mapping[str, str], sections: Sequence[Section], drawings: Sequence[Drawing]
) -> list[str]:
    """What the page says of one evaluation: its figures, and behind a click its tables with their conditions."""
    links = ", ".join(f"[{_language(name)}](tables/{name})" for name in tables if not name.endswith(CURVES))
    curves = [f"The training curves as a file: [CSV](tables/{name})." for name in tables if name.endswith(CURVES)]
    return [
        f"## {evaluation.title}",
        *(_image(drawing) for drawing in drawings if drawing.evaluation == evaluation.slug and drawing.files),
        f'<a id="{provenance.anchor(evaluation)}"></a>',
        f"<details><summary>All numbers of {evaluation.title}, with conditions and the fairness card</summary>",
        tables[f"{evaluation.slug}.md"].rstrip("\n"),
        "</details>",
        f"The same tables as files: {links}.",
        *curves,
        *(f"### {one.title}\n\n{one.text}" for one in sections if one.evaluation == evaluation.slug),
    ]


def _language(name: str) -> str:
    """What a table's file is written in."""
    return next(words for ending, words in LANGUAGES.items() if name.endswith(ending))


def _chapter(section: Section) -> str:
    return f"## {section.title}\n\n{section.text}"


def _missing(drawings: Sequence[Drawing]) -> list[str]:
    reasons = [f"- {drawing.title}: {drawing.reason}" for drawing in drawings if drawing.reason]
    return ["## Figures not drawn", "\n".join(reasons)] if reasons else []


def _image(drawing: Drawing) -> str:
    png, *others = (f"figures/{path.name}" for path in drawing.files)
    links = ", ".join(f"[{Path(name).suffix[1:].upper()}]({name})" for name in others)
    return f"![{drawing.title}]({png})\n\n{links}"
