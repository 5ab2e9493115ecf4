"""The comparison at a glance: one line for each model, one number for each evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from results.report.evaluations import Evaluation
from results.report.figures import catalogue
from results.report.tables import columns, table
from results.report.tables.columns import Column
from results.rows import metrics, readers

NOTE = (
    "✓ better than the best floor and the best shortcut by the 95 % interval, (✓) better, but one seed gives no interval; no "
    "mark: not better than both, or nothing to compare with. Floors guess; shortcuts read without understanding what is asked."
)


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """One Markdown table over the evaluations that figures show; averages over all that an evaluation asks."""
    columns = [
        (evaluation, column)
        for evaluation in evaluations
        if evaluation.main and not evaluation.is_contest and evaluation.learners and (column := headline(evaluation))
    ]
    if not columns:
        return ""
    models = columns[0][0].everyone
    lines = ["| family | model | " + " | ".join(f"{evaluation.title}: {c.header}" for evaluation, c in columns) + " |"]
    lines.append("|---|---|" + "---:|" * len(columns))
    for model in models:
        here = [next((m for m in evaluation.learners if m.label == model.label), model) for evaluation, _ in columns]
        shown = next((one for one in here if one.committed), model)
        cells = [table.cell(evaluation, one, c) for one, (evaluation, c) in zip(here, columns, strict=True)]
        lines.append("| " + " | ".join([model.group, shown.title, *cells]) + " |")
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [evaluation.best([kind], c.metric, c.where) for evaluation, c in columns]
        if any(best):
            named = [
                f and f"{metrics.number(c.metric, f[1])} ({f[0]})" for f, (_, c) in zip(best, columns, strict=True)
            ]
            lines.append(f"| *{kind}s* | *the best of each* | " + " | ".join(text or "none" for text in named) + " |")
    return "\n".join(lines)


def headline(evaluation: Evaluation) -> Column | None:
    """The number that stands for an evaluation: its first accuracy, averaged; else its loss; else its training speed."""
    accuracies = catalogue.main_accuracies(evaluation)
    if accuracies:
        return Column(f"{metrics.words(accuracies[0])} %, mean over all", accuracies[0], {})
    for metric in ("bits_per_byte", "training_tokens_per_second", *evaluation.metrics):
        wheres = evaluation.wheres(metric)
        if wheres and metric not in metrics.ABOUT_TRAINING:
            return Column(f"{metrics.words(metric)}, {columns.where_text(wheres[-1])}".strip(", "), metric, wheres[-1])
    return None
