"""Which tables an evaluation has, and which number stands in which of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.report.evaluations import Evaluation
from results.rows import metrics
from results.rows.row import canonical

WIDEST = 8  # columns of numbers that a reader still takes in at once
AVERAGED = ("depth",)  # settings that tables average over; figures show them
UNSURE = "(✓) better, but without an interval, as of one seed of what is no share"
END = 1.0  # the depth that stands apart


@dataclass(frozen=True)
class Column:
    """A metric under settings that the header names."""

    header: str
    metric: str
    where: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title and columns; its lines are the evaluation's models."""

    title: str
    columns: tuple[Column, ...]


def tables(evaluation: Evaluation) -> list[Table]:
    """The tables of an evaluation: metrics measured under equal settings share one while it stays readable.

    Different metrics are always different columns, so templates that name their metrics apart never mix.
    """
    about = [metric for metric in evaluation.metrics if metric in metrics.ABOUT_TRAINING]
    groups: dict[str, list[str]] = {}
    for metric in evaluation.metrics:
        if metric not in about and not metric.endswith(metrics.QUANTILES):
            groups.setdefault(canonical(column_wheres(evaluation, metric)), []).append(metric)
    found = [
        table for group in groups.values() for table in [*_of_group(evaluation, group), *_at_the_end(evaluation, group)]
    ]
    if about:
        found.append(Table("how training went", tuple(Column(metrics.words(m), m, {}) for m in about)))
    return found


def where_text(where: dict[str, Any]) -> str:
    """Settings as a header: {"variant": "s-niah-1", "length": 128} -> "s-niah-1, length 128"."""
    where = dict(where)
    parts = []
    if {"from", "to"} <= set(where):
        parts = [f"{where.pop('from')} to {where.pop('to')}"]
    return ", ".join(parts + [value if isinstance(value, str) else f"{key} {value}" for key, value in where.items()])


def axis_key(keys: Sequence[str]) -> str | None:
    """The setting that columns or a figure's x axis run over."""
    return "length" if "length" in keys else keys[-1] if keys else None


def column_wheres(evaluation: Evaluation, metric: str) -> list[dict[str, Any]]:
    """Distinct settings of a metric without the constant and the averaged ones, in the order of columns."""
    keys = [key for key in evaluation.varying(metric) if key not in AVERAGED]
    axis = axis_key(keys)
    keys = [key for key in keys if key != axis] + ([axis] if axis else [])
    found = {
        canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in evaluation.wheres(metric)
    }
    return sorted(found.values(), key=lambda where: [metrics.sort_key(where.get(key)) for key in keys])


def _at_the_end(evaluation: Evaluation, group: list[str]) -> list[Table]:
    """A table of the last depth alone, where a mean is over several: a window reaches the end of a text of any length."""
    found = []
    for metric in group:
        ends = [where | {"depth": END} for where in column_wheres(evaluation, metric)]
        there = {canonical(where): where for where in evaluation.wheres(metric)}
        ends = [end for end in ends if any(end.items() <= where.items() for where in there.values())]
        if "depth" not in evaluation.varying(metric):
            continue
        heads = [where_text({key: value for key, value in end.items() if key != "depth"}) for end in ends]
        columns = [Column(head, metric, end) for head, end in zip(heads, ends, strict=True)]
        title = f"{metrics.words(metric)} with the needle at the very end (depth 1.0)"
        found += [Table(title, tuple(columns[i : i + WIDEST])) for i in range(0, len(columns), WIDEST)]
    return found


def _of_group(evaluation: Evaluation, group: list[str]) -> list[Table]:
    wheres = column_wheres(evaluation, group[0])
    if len(group) * len(wheres) <= WIDEST:
        columns = [
            Column(
                f"{metrics.words(metric) if len(group) > 1 or not where else ''} {where_text(where)}".strip(),
                metric,
                where,
            )
            for metric in group
            for where in wheres
        ]
        return [Table(", ".join(_titled(metric) for metric in group), tuple(columns))]
    keys = list(wheres[0])
    axis = axis_key(keys)
    panel_keys = [key for key in keys if key not in (axis, "from", "to")] if len(wheres) > WIDEST else []
    tables = []
    for metric in group:
        panels: dict[str, list[dict[str, Any]]] = {}
        for where in wheres:
            panels.setdefault(where_text({key: where[key] for key in panel_keys}), []).append(where)
        for panel, members in panels.items():
            columns = tuple(
                Column(where_text({k: v for k, v in where.items() if k not in panel_keys}), metric, where)
                for where in members
            )
            tables.append(Table(f"{_titled(metric)}{f', {panel}' if panel else ''}", columns))
    return tables


def _titled(metric: str) -> str:
    better = {1: " (higher is better)", -1: " (lower is better)", 0: ""}[metrics.direction(metric)]
    return metrics.words(metric) + better
