"""How a metric is read: which way is better, whether it is a proportion, how its numbers are printed."""

from __future__ import annotations

from typing import Any

# What a cell tells about its own making beside what was asked; shown in a table of its own.
ABOUT_TRAINING = (
    "training_loss",
    "training_seconds",
    "evaluation_seconds",
    "weights_age_seconds",
    "timing_seconds",
    "machine_load",
    "scorer_disagreement",
    "validation_loss",
    "matched_flops_per_token",
)
QUANTILES = ("_quantile_10", "_quantile_90")  # endings of metrics that tables show beside their median
TASK_ORDER = ("language-modelling", "needle", "babilong")
_LOWER = (
    "bits_per_byte",
    "bits_per_token",
    "perplexity",
    "loss",
    "milliseconds",
    "seconds",
    "bytes",
    "flops",
    "error",
    "ratio",
    "floor",
)
_HIGHER = ("tokens_per_second", "accuracy", "match")
_UNITS = {
    "bits_per_byte": "bits/byte",
    "bits_per_token": "bits/token",
    "perplexity": "perplexity",
    "loss": "loss (nats)",
    "tokens_per_second": "tokens/s",
    "milliseconds_per_token": "ms/token",
    "seconds": "seconds",
    "bytes": "bytes",
    "flops_per_token": "FLOPs/token",
}


def is_accuracy(metric: str) -> bool:
    """Whether values are shares of right answers, between 0 and 1."""
    return metric.endswith(("accuracy", "match"))


def direction(metric: str) -> int:
    """+1 where more is better, -1 where less is, 0 where that is not known."""
    if any(word in metric for word in _HIGHER):
        return 1
    return -1 if any(word in metric for word in _LOWER) else 0


def words(name: str) -> str:
    """A name as words: "bits_per_byte" -> "bits per byte"."""
    return name.replace("_", " ")


def axis(metric: str) -> str:
    """An axis label with its unit."""
    if is_accuracy(metric):
        return f"{words(metric)} (%)"
    unit = next((unit for ending, unit in _UNITS.items() if metric.endswith(ending)), "")
    return f"{words(metric)} ({unit})" if unit and unit != words(metric) else words(metric)


def number(metric: str, value: float | None) -> str:
    """A value as tables print it: shares in percent, bytes with a unit, rates with separators."""
    if value is None:
        return ""
    if is_accuracy(metric):
        return f"{100 * value:.1f}"
    if metric.endswith("bytes"):
        return byte_size(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def byte_size(value: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least one: 1536 -> "1.5 KiB"."""
    if value is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def sort_key(value: Any) -> tuple[int, float, str]:
    """Orders settings of any type: numbers by size, then everything else by its text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)
