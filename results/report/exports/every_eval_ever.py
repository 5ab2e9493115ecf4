"""Rows as records of Every Eval Ever (arXiv 2606.14516): one JSON file for each model of each evaluation, schema 0.3.0."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from results.report.evaluations import Evaluation, Model, Point
from results.report.exports import scores
from results.report.exports.scores import Score
from results.report.tables import table
from results.rows import metrics
from results.rows.row import canonical, exam_of

SCHEMA = "0.3.0"  # of every_eval_ever/schemas/eval.schema.json
HOUSE, URL = "Titanomachy", "titanomachy"
UNITS = {metrics.SHARE: "proportion", "bits per byte": "bits_per_byte"}
BOUNDS = {metrics.SHARE: (0.0, 1.0), "share": (0.0, 1.0)}  # of a unit whose scores have a least and a most


def files(comparison: str, evaluations: Sequence[Evaluation], made: float) -> dict[str, str]:
    """Every record by its path in their datastore, `data/<benchmark>/<developer>/<model>/<uuid>.json`.

    `made` is the time of the export, in seconds since 1970. Training losses, seconds of training and the like are no scores and
    are left out; of trivial baselines the best stands beside each score. Names of files follow from what is in them.
    """
    found = {}
    for evaluation in evaluations:
        for model in evaluation.learners:
            if record := _record(comparison, evaluation, model, made):
                folder = f"data/{_slug(comparison)}-{evaluation.slug}/{record['model_info']['id']}"
                text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
                name = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)
                found[f"{folder}/{name}.json"] = text
    return found


def _record(comparison: str, evaluation: Evaluation, model: Model, made: float) -> dict[str, Any] | None:
    """One record; None for a model without a score."""
    results = [_result(evaluation, model, score) for score in scores.of_model(evaluation, model)]
    if not results:
        return None
    rows = evaluation.measured(model.label)
    identity = f"{URL}/{_slug(model.label)}"
    times = sorted(row["when"] for row in rows)
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{_slug(comparison)}-{evaluation.slug}/{identity}/{made}",
        "evaluation_timestamp": str(datetime.fromisoformat(times[-1]).astimezone(UTC).timestamp()),
        "retrieved_timestamp": str(made),
        "source_metadata": {
            "source_name": f"{HOUSE}: {comparison}",
            "source_type": "evaluation_run",
            "source_organization_name": HOUSE,
            "evaluator_relationship": "first_party",  # who evaluates also trained the weights, whoever thought of the model
        },
        "eval_library": {
            "name": URL,
            "version": table.distinct(rows, "commit"),
            "additional_details": {"uncommitted_changes": str(any(row["dirty"] for row in rows)).lower()},
        },
        "model_info": _model(evaluation, model, identity),
        "evaluation_results": results,
    }


def _model(evaluation: Evaluation, model: Model, identity: str) -> dict[str, Any]:
    rows, setup = evaluation.measured(model.label), evaluation.setup
    torch = sorted({row["versions"].get("torch", "") for row in rows} - {""})
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "unknown",  # trained for this evaluation; whether weights were published is not in the rows
        "registered_model": model.name,
        "family": model.group or model.family,
        "parameters": model.parameters,
        "state_bytes": model.state_bytes,
        "settings": canonical(rows[0]["settings"]["model"]),
        **{name: canonical(setup[name]) for name in ("size", "budget") if setup[name]},
        **{name: table.distinct(rows, name) for name in ("protocol", "seed", "lr", "dtype", "device", "provider")},
    }
    engine = {"inference_engine": {"name": "torch", "version": ", ".join(torch)}} if torch else {}
    told = {name: str(value) for name, value in details.items() if value not in (None, "")}
    return {"name": model.label, "id": identity, "developer": HOUSE, **engine, "additional_details": told}


def _result(evaluation: Evaluation, model: Model, score: Score) -> dict[str, Any]:
    metric = metrics.metric(score.metric)
    bounds = BOUNDS.get(metric.unit)
    limits = {"score_type": "continuous", "min_score": bounds[0], "max_score": bounds[1]} if bounds else {}
    unit = {"metric_unit": UNITS.get(metric.unit, metric.unit)} if metric.unit else {}
    first = evaluation.measured(model.label)[0]
    data = {
        "settings": canonical(evaluation.settings), "data_hash": first["data_hash"], "evaluation_version": exam_of(first),
    }  # fmt: skip
    return {
        "evaluation_result_id": f"{evaluation.slug}/{score.metric}/{score.place}",
        "evaluation_name": f"{evaluation.task}: {score.place}" if score.place else evaluation.task,
        "source_data": {
            "dataset_name": evaluation.title,
            "source_type": "other",
            "additional_details": {name: str(value) for name, value in data.items() if value != ""},
        },
        "metric_config": {
            "evaluation_description": f"{metric.title} on {evaluation.title}",
            "metric_id": f"{URL}.{score.metric}",
            "metric_name": metric.title,
            **unit,
            "metric_parameters": dict(score.where),
            "lower_is_better": metric.direction == metrics.LOWER,
            **limits,
        },
        "score_details": {
            "score": score.point.value,
            **_uncertainty(score.point),
            "details": dict(_beside(evaluation, model, score)),
        },
    }


def _uncertainty(point: Point) -> dict[str, Any]:
    if point.low is None:
        return {}
    method = "Student's t over seeds" + (
        ", and at least Wilson's of the share" if point.low >= 0 and point.high <= 1 else ""
    )
    interval = {"lower": point.low, "upper": point.high, "confidence_level": 0.95, "method": method}
    return {"uncertainty": {"confidence_interval": interval, "num_samples": point.count}}


def _beside(evaluation: Evaluation, model: Model, score: Score) -> Iterator[tuple[str, str]]:
    """What a score stands beside: seeds, and the best of those that guess or read without understanding."""
    yield "seeds", str(score.point.seeds)
    if bar := evaluation.bar(score.metric, score.where):
        yield "best_trivial_baseline_or_shortcut", f"{bar[1]:.6g} ({bar[0]})"
        yield "better_by_its_interval", evaluation.learned(model.label, score.metric, score.where)


def _slug(text: str) -> str:
    """Text as one part of a path: letters, digits, dots and hyphens."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in ".-_") else "-" for letter in text)
    return plain.strip("-.") or "unnamed"
