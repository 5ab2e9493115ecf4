"""What a plan shows of a paper: its printed tables, and figures in its own form; the plan's keys, read strictly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from results.plans.toml_reader import PlanError, TableReader
from results.rows import metrics, published

SCALES = ("linear", "log")


@dataclass(frozen=True)
class Printed:
    """One [[printed]] table: a file of results/published, and the values that its columns must have."""

    table: str
    where: dict[str, Any] = field(default_factory=dict)  # column -> value, or a list of values


@dataclass(frozen=True)
class Form:
    """One [[figures]] table: a figure with a paper's axes, our rows filled and its numbers hollow."""

    name: str  # of the files
    title: str
    task: str
    metric: str
    printed: Printed
    where: dict[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()  # labels that are shown; all, if none is named
    same: dict[str, str] = field(default_factory=dict)  # a printed model's name -> the label here that it looks like
    x_scale: str = "log"
    y_scale: str = "linear"
    by_batch: bool = False  # the axis is the paper's "length x batch"


def read_printed(table: dict[str, Any], reader: TableReader, where: str = "[[printed]] ") -> Printed:
    """One [[printed]] table; raises PlanError for one that selects nothing."""
    reader.refuse_unknown(table, ("table", "where"), where)
    found = Printed(reader.take(table, "table", str, where=where), reader.take_values(table, "where", where))
    try:
        published.lines(found.table, found.where)
    except published.PublishedError as error:
        raise PlanError(f"{reader.source}: {where}{error}") from None
    return found


def _same(table: dict[str, Any], reader: TableReader, where: str) -> dict[str, str]:
    inner = reader.take(table, "same", dict, {}, where)
    return {name: reader.take(inner, name, str, where=f"{where}same ") for name in inner}


def read_form(table: dict[str, Any], reader: TableReader) -> Form:
    """One [[figures]] table; raises PlanError."""
    where = "[[figures]] "
    texts = ("name", "title", "task", "metric")
    reader.refuse_unknown(
        table, (*texts, "printed", "where", "models", "same", "x_scale", "y_scale", "by_batch"), where
    )
    form = Form(
        **{name: reader.take(table, name, str, where=where) for name in texts},
        printed=read_printed(reader.take(table, "printed", dict, where=where), reader, f"{where}printed: "),
        where=reader.take_values(table, "where", where),
        models=tuple(reader.take_list(table, "models", str, [], where)),
        same=_same(table, reader, where),
        x_scale=reader.take(table, "x_scale", str, "log", where),
        y_scale=reader.take(table, "y_scale", str, "linear", where),
        by_batch=reader.take(table, "by_batch", bool, False, where),
    )
    chosen = published.lines(form.printed.table, form.printed.where)
    unknown = sorted(set(form.same) - {row["model"] for row in chosen})
    without = any(row["length"] is None for row in chosen)
    problems = [
        (not {form.x_scale, form.y_scale} <= set(SCALES), f"x_scale and y_scale are {' or '.join(SCALES)}"),
        (not metrics.is_ranked(form.metric), f"the metric {form.metric!r} is not known"),
        (bool(unknown), f"same names {', '.join(unknown)}, which {form.printed.table} does not print"),
        (without, f"{form.printed.table} prints rows without a length; choose others with where"),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{reader.source}: {where}{form.name!r}: {message}.")
    return form
