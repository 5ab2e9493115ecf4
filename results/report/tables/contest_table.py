"""Tables of a side-by-side benchmark: the candidates' times, memory, ratios to the reference and to their matrix products."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table as Printed

from results.report.evaluations import Evaluation, grouped
from results.report.tables.columns import Column, Table, where_text
from results.rows import metrics

CLOCKS = ("training_step_seconds", "reading_seconds", "decoding_microseconds_per_token")  # of each direction
COLUMNS = (
    ("step, seconds", "training_step_seconds"),
    ("reading, seconds", "reading_seconds"),
    ("a token, microseconds", "decoding_microseconds_per_token"),
    ("time ratio", "time_ratio"),
    ("CPU seconds", "training_step_cpu_seconds"),
    ("CPU seconds", "reading_cpu_seconds"),
    ("CPU microseconds", "decoding_cpu_microseconds_per_token"),
    ("CPU time ratio", "cpu_time_ratio"),
    ("peak memory", "peak_memory_bytes"),
    ("memory ratio", "memory_ratio"),
    ("times the floor", "times_the_floor"),
    ("error", "law_error"),
)
IN_TERMINAL = {
    "training_step_seconds": "seconds",
    "reading_seconds": "seconds",
    "decoding_microseconds_per_token": "microseconds",
    "time_ratio": "x time",
    "cpu_time_ratio": "x CPU",
    "peak_memory_bytes": "memory",
    "memory_ratio": "x memory",
    "times_the_floor": "x floor",
    "law_error": "error",
}
STEPS = {
    "training_step_seconds": "One training step (forward and backward)",
    "reading_seconds": "One reading of a text (forward, without a gradient)",
    "decoding_microseconds_per_token": "One decoded token, of many in turn, each from the state that the one before left",
}
HOW = (
    "{step}, entrants in turn within each round; ratios are taken within a round, to {name}. "
    "Times the floor: the step's time over what its matrix products alone would take at the speed of a 1024 x 1024 product "
    "in the same rounds ({rates}); products in a causal softmax count half, elementwise work counts nothing."
)
ALONE = (
    "{step}, of the recurrence alone with what its layer gives it, entrants in turn within each round; ratios are taken within a "
    "round, to {name}. Error: the largest difference from the law, token by token in float64, over its largest output."
)


def tables(evaluation: Evaluation) -> list[Table]:
    """A table for each length, shortest first."""
    wheres = evaluation.wheres(_clock(evaluation))
    return [
        Table(
            where_text(where),
            tuple(Column(header, metric, where) for header, metric in COLUMNS if evaluation.measured(metric=metric)),
        )
        for where in wheres
    ]


def _clock(evaluation: Evaluation) -> str:
    """The metric of a step's time in a benchmark's direction."""
    return next((metric for metric in CLOCKS if evaluation.measured(metric=metric)), CLOCKS[0])


def notes(evaluation: Evaluation, one: Table) -> str:
    """How to read a side-by-side benchmark's table, and below it who is missing or gave no finite output, and why."""
    where = one.columns[0].where
    rates = [
        r for r in evaluation.measured(metric="matrix_product_flops_per_second") if where.items() <= r["where"].items()
    ]
    speeds = ", ".join(f"{row['value'] / 1e9:,.0f} GFLOP/s" for row in rates) or "not measured"
    how = ALONE if evaluation.settings["level"] == "operation" else HOW
    lines = [how.format(step=STEPS[_clock(evaluation)], name=evaluation.settings["reference"], rates=speeds)]
    return "\n".join([*lines, *missing(evaluation, where), ""])


def missing(evaluation: Evaluation, where: dict[str, Any]) -> list[str]:
    """One line for each candidate without a number at this length, and for each whose output was not finite."""
    found = []
    for model in evaluation.learners:
        if evaluation.point(model.label, _clock(evaluation), where) is None:
            found.append(f"{model.label}: {evaluation.reason(model.label, where)}")
        finite = evaluation.point(model.label, "finite_output", where)
        if finite is not None and not finite.value:
            found.append(f"{model.label}: its output was not finite (NaN or infinite); it was timed all the same")
    return found


def terminal(rows: Iterable[dict[str, Any]]) -> list[Printed | str]:
    """The tables of every side-by-side benchmark for a terminal, each followed by the lines on who is missing."""
    parts: list[Printed | str] = []
    for evaluation in grouped(rows):
        for one in tables(evaluation) if evaluation.is_contest else ():
            printed = Printed(title=f"{evaluation.title}, {one.title}")
            columns = [column for column in one.columns if column.metric in IN_TERMINAL]
            printed.add_column("entrant")
            for column in columns:
                printed.add_column(IN_TERMINAL[column.metric], justify="right", no_wrap=True)
            for model in evaluation.learners:
                printed.add_row(model.label, *(_short(evaluation, model.label, column) for column in columns))
            parts += [printed, *missing(evaluation, one.columns[0].where)]
    return parts


def _short(evaluation: Evaluation, label: str, column: Column) -> str:
    point = evaluation.point(label, column.metric, column.where)
    if point is None:
        return evaluation.reason(label, column.where).split(":")[0]
    return metrics.number(column.metric, point.value)
