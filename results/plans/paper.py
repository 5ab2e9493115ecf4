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
        published.select(found.table, found.where)
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
    chosen = published.select(form.printed.table, form.printed.where)
    unknown = sorted(set(form.same) - set(chosen.model))
    problems = [
        (not {form.x_scale, form.y_scale} <= set(SCALES), f"x_scale and y_scale are {' or '.join(SCALES)}"),
        (not metrics.is_ranked(form.metric), f"the metric {form.metric!r} is not known"),
        (bool(unknown), f"same names {', '.join(unknown)}, which {form.printed.table} does not print"),
        (chosen.length.isna().any(), f"{form.printed.table} prints rows without a length; choose others with where"),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{reader.source}: {where}{form.name!r}: {message}.")
    return form


@dataclass(frozen=True)
class Claim:
    """One [[claims]] table; `better` and `worse` are names as tables show them."""

    text: str
    source: str
    better: str
    worse: str
    task: str
    metric: str
    where: dict[str, Any] = field(default_factory=dict)
    parameters: float | None = None  # of the paper's models
    tokens: float | None = None  # that they were trained on
    protocol: str = ""


def read_claim(table: dict[str, Any], reader: TableReader) -> Claim:
    """One [[claims]] table; raises PlanError."""
    where, texts = "[[claims]] ", ("text", "source", "better", "worse", "task", "metric")
    reader.refuse_unknown(table, (*texts, "where", "parameters", "tokens", "protocol"), where)
    claim = Claim(
        **{name: reader.take(table, name, str, where=where) for name in texts},
        where=reader.take_values(table, "where", where),
        parameters=reader.take(table, "parameters", float, None, where),
        tokens=reader.take(table, "tokens", float, None, where),
        protocol=reader.take(table, "protocol", str, where=where) if "protocol" in table else "",
    )
    problems = [
        (claim.better == claim.worse, "better and worse name the same model"),
        (not metrics.is_ranked(claim.metric), f"which way {claim.metric!r} is better is not known"),
        (
            any(n is not None and not n > 0 for n in (claim.parameters, claim.tokens)),
            "parameters and tokens are above 0",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{reader.source}: {where}{claim.text!r}: {message}.")
    return claim
