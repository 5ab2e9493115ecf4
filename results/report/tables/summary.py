"""The comparison at a glance: one line for each model, one number for each exam."""

from __future__ import annotations

from collections.abc import Sequence

from results.report.evaluations import Exam
from results.report.figures import catalogue
from results.report.tables import columns, table
from results.report.tables.columns import Column
from results.rows import metrics, readers

NOTE = (
    "✓ better than the best floor and the best shortcut by the 95 % interval, (✓) better, but one seed gives no interval; no "
    "mark: not better than both, or nothing to compare with. Floors guess; shortcuts read without understanding what is asked."
)


def markdown(exams: Sequence[Exam]) -> str:
    """One Markdown table over the exams that figures show; averages over all that an exam asks."""
    columns = [
        (exam, column)
        for exam in exams
        if exam.main and not exam.is_contest and exam.learners and (column := headline(exam))
    ]
    if not columns:
        return ""
    models = columns[0][0].everyone
    lines = ["| family | model | " + " | ".join(f"{exam.title}: {c.header}" for exam, c in columns) + " |"]
    lines.append("|---|---|" + "---:|" * len(columns))
    for model in models:
        here = [next((m for m in exam.learners if m.label == model.label), model) for exam, _ in columns]
        shown = next((one for one in here if one.committed), model)
        cells = [table.cell(exam, one, c) for one, (exam, c) in zip(here, columns, strict=True)]
        lines.append("| " + " | ".join([model.group, shown.title, *cells]) + " |")
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [exam.best([kind], c.metric, c.where) for exam, c in columns]
        if any(best):
            named = [
                f and f"{metrics.number(c.metric, f[1])} ({f[0]})" for f, (_, c) in zip(best, columns, strict=True)
            ]
            lines.append(f"| *{kind}s* | *the best of each* | " + " | ".join(text or "none" for text in named) + " |")
    return "\n".join(lines)


def headline(exam: Exam) -> Column | None:
    """The number that stands for an exam: its first accuracy, averaged; else its loss; else its training speed."""
    accuracies = catalogue.main_accuracies(exam)
    if accuracies:
        return Column(f"{metrics.words(accuracies[0])} %, mean over all", accuracies[0], {})
    for metric in ("bits_per_byte", "training_tokens_per_second", *exam.metrics):
        wheres = exam.wheres(metric)
        if wheres and metric not in metrics.ABOUT_TRAINING:
            return Column(f"{metrics.words(metric)}, {columns.where_text(wheres[-1])}".strip(", "), metric, wheres[-1])
    return None
