"""All numbers of an evaluation as a CSV file in long form, those of its tables and those that tables average over."""

from __future__ import annotations

import csv
import io
from typing import Any

from results.report.evaluations import Evaluation, Model
from results.report.tables import table
from results.report.tables.columns import AVERAGED, column_wheres
from results.rows import metrics
from results.rows.row import canonical

CSV_COLUMNS = (
    "task", "metric", "where", "model", "family", "family_order", "parameters",
    "parameters_to_reference_percent", "state_bytes", "value", "low", "high", "count", "seeds", "status", "reason",
    "best_floor", "best_floor_value", "best_shortcut", "best_shortcut_value", "learned", "committed_reference", "protocol",
    "provider", "device", "threads", "dtype", "lr",
)  # fmt: skip


def csv_text(evaluation: Evaluation, reference_model: str = "transformer", beside: Evaluation | None = None) -> str:
    """All numbers of an evaluation in long form: those of the tables, and those that the tables average over."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    models = [(model, _of_model(evaluation, model, reference_model)) for model in table.lines(evaluation)]
    for metric in evaluation.metrics:
        wheres = [{}] if metric in metrics.ABOUT_TRAINING else evaluation.wheres(metric)
        if metric not in metrics.ABOUT_TRAINING and any(key in evaluation.varying(metric) for key in AVERAGED):
            wheres = [*column_wheres(evaluation, metric), *wheres]
        for where in wheres:
            for model, known in models:
                writer.writerow(_record(evaluation, model, metric, where, beside) | known)
    return out.getvalue()


def _of_model(evaluation: Evaluation, model: Model, reference_model: str) -> dict[str, Any]:
    """What all lines of a model say alike."""
    rows, gap = evaluation.rows.get(model.label, []), table.parameter_gap(evaluation, model, reference_model)
    return {
        "task": evaluation.title, "model": model.label, "family": model.family, "family_order": model.order,
        "parameters": model.parameters, "parameters_to_reference_percent": None if gap is None else f"{gap:.2f}",
        "state_bytes": model.state_bytes, "protocol": table.distinct(rows, "protocol"),
        "provider": table.providers(evaluation, model), "device": evaluation.setup["device"],
        "threads": evaluation.setup["threads"], "dtype": evaluation.setup["dtype"], "lr": table.distinct(rows, "lr"),
    }  # fmt: skip


def _record(
    evaluation: Evaluation,
    model: Model,
    metric: str,
    where: dict[str, Any],
    beside: Evaluation | None,
) -> dict[str, Any]:
    point, floor = evaluation.point(model.label, metric, where), evaluation.best_floor(metric, where)
    shortcut = evaluation.best_shortcut(metric, where)
    other = beside.point(model.label, metric, where) if beside else None
    reason = "" if point else evaluation.why(model.label, metric, where)
    return {
        "metric": metric, "where": canonical(where),
        "value": point and point.value, "low": point and point.low, "high": point and point.high,
        "count": point.count if point else 0, "seeds": point.seeds if point else 0,
        "status": ("committed" if model.committed else "ok") if point else reason.split(":")[0], "reason": reason,
        "best_floor": floor and floor[0], "best_floor_value": floor and floor[1],
        "best_shortcut": shortcut and shortcut[0], "best_shortcut_value": shortcut and shortcut[1],
        "learned": "" if model.is_floor else evaluation.learned(model.label, metric, where),
        "committed_reference": other and other.value,
    }  # fmt: skip
