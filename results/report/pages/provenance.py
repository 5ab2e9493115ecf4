"""Where a number comes from: the rows behind it, and what a page shows of each of them when it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from results.report.evaluations import Evaluation, Model
from results.report.tables import columns
from results.report.tables.columns import Column
from results.rows import metrics

FACTS = ("commit", "when", "device", "threads", "dtype", "provider", "lr", "seed", "protocol", "code_hash", "data_hash")


class Origin(NamedTuple):
    """What a number's button says and opens: the keys of its cells, the number in words, and a line to hover over."""

    cells: tuple[str, ...] = ()
    what: str = ""
    hover: str = ""


def anchor(evaluation: Evaluation) -> str:
    """The anchor of an evaluation's numbers, with their conditions, on its comparison's page in either form."""
    return f"numbers-{evaluation.slug}"


def origin(evaluation: Evaluation, model: Model, column: Column) -> Origin | None:
    """The rows behind a model's number, or behind the reason why there is none; None where no row tells of it."""
    point = evaluation.point(model.label, column.metric, column.where)
    rows = [row for row in evaluation.rows.get(model.label, []) if point is None or _counts(row, column)]
    if not rows:
        return None
    what = ", ".join(filter(None, [model.label, metrics.words(column.metric), columns.where_text(column.where)]))
    if point is not None:
        spread = f"; 95 % confidence interval {point.low:.6g} to {point.high:.6g}" if point.low is not None else ""
        what += f": {point.value:.6g} from {point.count:,} items, {evaluation.repeats(point.seeds)}{spread}"
    days = sorted({row["when"][:10] for row in rows})
    hover = f"commit {rows[0]['commit'][:10] or 'unknown'}, {days[0]}; click for all"
    return Origin(tuple(dict.fromkeys(row["cell"] for row in rows)), what, hover)


def _counts(row: Mapping[str, Any], column: Column) -> bool:
    return row["metric"] == column.metric and column.where.items() <= row["where"].items()


def facts(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What stands behind each cell's rows, by key."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["cell"], row["when"])):
        known = {name: row[name] for name in FACTS} | {"settings": row["settings"], **row["versions"]}
        found[row["cell"]] = {**known, "commit": row["commit"] + (" with changes" if row["dirty"] else "")}
    return found
