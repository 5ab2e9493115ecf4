"""What a memory that is added to a trained model is worth, and what it costs: with it and without it, on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from results.report.evaluations import Evaluation, Model
from results.report.section import Section
from results.rows import metrics

WITH, WITHOUT = "memory_validation_loss", "validation_loss"
READING, READING_WITH = "reading_milliseconds_per_token", "memory_reading_milliseconds_per_token"
TITLE = "What memory added after training is worth"
HEADS = (
    "model", "loss without memory", "loss with memory", "difference", "chosen", "size of the memory", "filled in",
    "ms/token without memory", "ms/token with memory",
)  # fmt: skip
NOTE = (
    "<sub>In nats a token on the validation split, of the same trained weights, mean over seeds; negative: the memory helps. "
    "Validation chose what is chosen, never the test, whose numbers with memory stand in the tables above. Its size: what it was "
    "filled with, and what a text's state has more.</sub>"
)


def sections(evaluations: Sequence[Evaluation]) -> list[Section]:
    """A table below each evaluation that has such models."""
    return [Section(TITLE, text, one.slug) for one in evaluations if (text := markdown(one))]


def markdown(evaluation: Evaluation) -> str:
    """The table, a line for each model with a memory; "" where there is none."""
    asked = [(model, _found(evaluation, model)) for model in evaluation.learners]
    lines = [_line(model, found) for model, found in asked if WITH in found and WITHOUT in found]
    head = ["| " + " | ".join(HEADS) + " |", "|---|" + "---:|" * (len(HEADS) - 1)]
    return "\n".join([*head, *lines, "", NOTE]) if lines else ""


def _found(evaluation: Evaluation, model: Model) -> dict[str, list[dict[str, Any]]]:
    """A model's rows that have a number, by metric."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in evaluation.rows[model.label]:
        if row["status"] == "ok":
            found.setdefault(row["metric"], []).append(row)
    return found


def _line(model: Model, found: dict[str, list[dict[str, Any]]]) -> str:
    def number(metric: str) -> float | None:
        return mean(row["value"] for row in found[metric]) if metric in found else None

    def told(metric: str) -> str:
        value = number(metric)
        return "" if value is None else metrics.number(metric, value)

    chosen = dict.fromkeys(_chosen(row["where"]) for row in found[WITH])
    memory, filled = number("memory_bytes"), number("memory_build_seconds")
    cells = [
        told(WITHOUT),
        told(WITH),
        f"{number(WITH) - number(WITHOUT):+.3f}",
        "; ".join(filter(None, chosen)),
        "" if memory is None else metrics.byte_size(memory),
        "" if filled is None else f"{filled:.1f} s",
        *(f"{value:.3f}" if (value := number(metric)) is not None else "" for metric in (READING, READING_WITH)),
    ]
    return "| " + " | ".join([model.title, *cells]) + " |"


def _chosen(where: dict[str, Any]) -> str:
    """The settings that validation chose; what was tried stands in the rows."""
    return ", ".join(f"{name} {value:g}" for name, value in where.items() if isinstance(value, int | float))
