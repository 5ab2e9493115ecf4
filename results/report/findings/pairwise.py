"""Which orderings of models the rows allow to be stated, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from results.plans.method.looks import Schedule
from results.report import statistics
from results.report.evaluations import ASKED, Evaluation
from results.report.statistics import Difference
from results.report.tables import summary
from results.report.tables.columns import Column
from results.rows import metrics
from results.rows.row import canonical
from schema.words import several

MOST_NAMED = 4  # models that do not differ from one another are counted, not named, beyond so many


def markdown(evaluations: Sequence[Evaluation], schedule: Schedule | None = None) -> str:
    """For each evaluation's headline number: whom each model is better than, worse than, not shown to differ from.

    Of a plan with looks the seeds of the first alone count: further ones were asked for because claims were open.
    """
    parts = []
    for evaluation in evaluations:
        column = _compared(evaluation)
        if column is None:
            continue
        values = {m.label: evaluation.by_seed(m.label, column.metric, column.where) for m in evaluation.learners}
        if schedule is not None:
            values = {
                label: {s: v for s, v in seeds.items() if s in schedule.looks[0]} for label, seeds in values.items()
            }
        pairs = statistics.all_pairs({label: seeds for label, seeds in values.items() if seeds})
        if pairs:
            parts.append(f"**{evaluation.title}: {column.header}.** {_said(pairs, metrics.direction(column.metric))}")
    return "\n\n".join([*parts, _about_ranks(blocks(evaluations))]) if parts else ""


def blocks(evaluations: Sequence[Evaluation]) -> list[dict[str, float]]:
    """What average ranks are taken over: a block for each task, and for each question or variant that it asks.

    Values of the headline numbers by model, turned so that more is better; models that lack a block are left out.
    """
    found = []
    for evaluation in evaluations:
        column = _compared(evaluation)
        if column is None:
            continue
        way, asked = metrics.direction(column.metric), {}
        for where in evaluation.wheres(column.metric):
            if column.where.items() <= where.items():
                one = column.where | {key: where[key] for key in ASKED if key in where}
                asked[canonical(one)] = one
        for where in asked.values():
            points = {m.label: evaluation.point(m.label, column.metric, where) for m in evaluation.learners}
            found.append({label: way * point.value for label, point in points.items() if point})
    everywhere = set.intersection(*map(set, found)) if found else set()
    return [{label: value for label, value in block.items() if label in everywhere} for block in found]


def _compared(evaluation: Evaluation) -> Column | None:
    """The headline number of a trained evaluation of several models, where it is known which way is better."""
    if not evaluation.main or evaluation.is_timing or evaluation.is_contest or len(evaluation.learners) < 2:
        return None
    column = summary.headline(evaluation)
    return column if column is not None and metrics.direction(column.metric) else None


def are_ranked(blocks: Sequence[Mapping[str, float]]) -> bool:
    """Whether there are blocks enough, and more than one model in all of them."""
    return len(blocks) >= statistics.FEWEST_BLOCKS and len(blocks[0]) >= 2


def _about_ranks(blocks: Sequence[Mapping[str, float]]) -> str:
    few = statistics.FEWEST_BLOCKS
    if are_ranked(blocks):
        return f"Average ranks over {len(blocks)} blocks (tasks, their questions and variants) held apart by Nemenyi's test:"
    if len(blocks) >= few:
        return (
            f"Average ranks are compared between models that have all {len(blocks)} blocks; {len(blocks[0])} has them."
        )
    return f"Average ranks are compared from {few} blocks (tasks, their questions and variants) up; here are {len(blocks)}."


def _said(pairs: Sequence[Difference], way: int) -> str:
    most = max(pair.seeds for pair in pairs)
    if most < statistics.FEWEST_SEEDS:
        return f"No ordering is stated: {several(most, 'shared seed')}, and one is stated from {statistics.FEWEST_SEEDS} up."
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
        level = ", ".join(sides[0]) if len(sides[0]) <= MOST_NAMED else f"{len(sides[0])} models"
        lines.append("| " + " | ".join([name, *(", ".join(sides[side]) for side in (1, -1)), level]) + " |")
    return note + "\n\n" + "\n".join(lines)
