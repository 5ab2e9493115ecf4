"""Which orderings of models the rows allow to be stated, exam by exam."""

from __future__ import annotations

from collections.abc import Sequence

from results import metrics, statistics, summary
from results.statistics import Difference
from results.view import Exam


def markdown(exams: Sequence[Exam]) -> str:
    """For each exam's headline number: whom each model is better than, worse than, not shown to differ from."""
    parts = []
    for exam in exams:
        column = summary.headline(exam) if exam.main and not exam.is_timing and len(exam.learners) > 1 else None
        if column is None or not metrics.direction(column.metric):
            continue
        values = {m.label: exam.by_seed(m.label, column.metric, column.where) for m in exam.learners}
        pairs = statistics.all_pairs({label: seeds for label, seeds in values.items() if seeds})
        if pairs:
            parts.append(f"**{exam.title}: {column.header}.** {_said(pairs, metrics.direction(column.metric))}")
    return "\n\n".join(parts)


def _said(pairs: Sequence[Difference], way: int) -> str:
    most = max(pair.seeds for pair in pairs)
    if most < statistics.FEWEST_SEEDS:
        seeds = f"{most} shared seed{'s' if most > 1 else ''}"
        return f"No ordering is stated: {seeds}, and one is stated from {statistics.FEWEST_SEEDS} up."
    stated = sum(pair.shown != 0 for pair in pairs)
    note = (
        f"Paired t tests over seeds, Holm's correction over {len(pairs)} pairs: {stated} show a difference, for "
        f"{len(pairs) - stated} there is no difference shown."
    )
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    lines = ["| model | better than | worse than | no difference shown |", "|---|---|---|---|"]
    for name in names:
        sides: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for pair in pairs:
            if name in (pair.first, pair.second):
                mine = 1 if name == pair.first else -1
                sides[mine * way * pair.shown].append(pair.second if mine > 0 else pair.first)
        lines.append("| " + " | ".join([name, *(", ".join(sides[side]) for side in (1, -1, 0))]) + " |")
    return note + "\n\n" + "\n".join(lines)
