"""A contest's tables: entrants with their times, ratios to the reference, memory and distance to the floor, at each length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table as Printed

from results.report import evaluations
from results.report.evaluations import Exam
from results.report.tables.columns import Column, Table, where_text
from results.rows import metrics

COLUMNS = (
    ("step, seconds", "training_step_seconds"),
    ("time ratio", "time_ratio"),
    ("CPU seconds", "training_step_cpu_seconds"),
    ("CPU time ratio", "cpu_time_ratio"),
    ("peak memory", "peak_memory_bytes"),
    ("memory ratio", "memory_ratio"),
    ("times the floor", "times_the_floor"),
)
IN_TERMINAL = {
    "training_step_seconds": "seconds",
    "time_ratio": "x time",
    "cpu_time_ratio": "x CPU",
    "peak_memory_bytes": "memory",
    "memory_ratio": "x memory",
    "times_the_floor": "x floor",
}
HOW = (
    "One training step (forward and backward), entrants in turn within each round; ratios are taken within a round, to {name}. "
    "Times the floor: the step's time over what its matrix products alone would take at the speed of a 1024 x 1024 product "
    "in the same rounds ({rates}); products in a causal softmax count half, elementwise work counts nothing."
)


def tables(exam: Exam) -> list[Table]:
    """A table for each length, shortest first."""
    wheres = exam.wheres("training_step_seconds")
    return [
        Table(
            where_text(where),
            tuple(Column(header, metric, where) for header, metric in COLUMNS if exam.measured(metric=metric)),
        )
        for where in wheres
    ]


def notes(exam: Exam, one: Table) -> str:
    """How to read a contest's table, and below it who is missing or gave no finite output, each with the reason."""
    where = one.columns[0].where
    rates = [r for r in exam.measured(metric="matrix_product_flops_per_second") if where.items() <= r["where"].items()]
    speeds = ", ".join(f"{row['value'] / 1e9:,.0f} GFLOP/s" for row in rates) or "not measured"
    lines = [HOW.format(name=exam.settings["reference"], rates=speeds)]
    return "\n".join([*lines, *missing(exam, where), ""])


def missing(exam: Exam, where: dict[str, Any]) -> list[str]:
    """One line for each entrant without a number at this length, and for each whose output was not finite."""
    found = []
    for model in exam.learners:
        if exam.point(model.label, "training_step_seconds", where) is None:
            found.append(f"{model.label}: {exam.reason(model.label, where)}")
        finite = exam.point(model.label, "finite_output", where)
        if finite is not None and not finite.value:
            found.append(f"{model.label}: its output was not finite (NaN or infinite); it was timed all the same")
    return found


def terminal(rows: Iterable[dict[str, Any]]) -> list[Printed | str]:
    """Every contest's tables for a terminal, each followed by the lines on who is missing; nothing without a contest."""
    parts: list[Printed | str] = []
    for exam in evaluations.exams(rows):
        for one in tables(exam) if exam.is_contest else ():
            printed = Printed(title=f"{exam.title}, {one.title}")
            columns = [column for column in one.columns if column.metric in IN_TERMINAL]
            printed.add_column("entrant")
            for column in columns:
                printed.add_column(IN_TERMINAL[column.metric], justify="right", no_wrap=True)
            for model in exam.learners:
                printed.add_row(model.label, *(_short(exam, model.label, column) for column in columns))
            parts += [printed, *missing(exam, one.columns[0].where)]
    return parts


def _short(exam: Exam, label: str, column: Column) -> str:
    point = exam.point(label, column.metric, column.where)
    if point is None:
        return exam.reason(label, column.where).split(":")[0]
    return metrics.number(column.metric, point.value)
