"""Every metric that cells measure: its full name, which way is better, its unit, and how its numbers are printed."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from schema import shortened, suggestion

HIGHER, LOWER, NEITHER = 1, -1, 0  # which way is better
SHARE, BYTES = "%", "bytes"
RELATIVE = "relative error"  # far below one: its power of ten is what is read


class Metric(NamedTuple):
    """What a metric is called in full, which way is better, and in what it is measured."""

    title: str
    direction: int
    unit: str = ""
    is_about_training: bool = False  # told of a cell's making beside what was asked; shown in a table of its own


class UnknownMetricError(ValueError):
    """A metric that METRICS does not hold, in one sentence."""


METRICS = {
    # language modelling
    "bits_per_byte": Metric("loss", LOWER, "bits per byte"),
    "bits_per_token": Metric("loss", LOWER, "bits per token"),
    "bits_per_byte_at_position": Metric("loss at the position", LOWER, "bits per byte"),
    "bits_per_token_at_position": Metric("loss at the position", LOWER, "bits per token"),
    "perplexity": Metric("perplexity", LOWER),
    "word_perplexity": Metric("perplexity of words", LOWER),
    # answers: shares of those that are right
    "accuracy": Metric("accuracy", HIGHER, SHARE),
    "answer_token_accuracy": Metric("accuracy of the answer's tokens", HIGHER, SHARE),
    "choice_accuracy": Metric("accuracy among the choices", HIGHER, SHARE),
    "exact_accuracy": Metric("accuracy of exact answers", HIGHER, SHARE),
    "exact_match": Metric("exact match", HIGHER, SHARE),
    "final_accuracy": Metric("accuracy at the end", HIGHER, SHARE),
    "generated_accuracy": Metric("accuracy of generated answers", HIGHER, SHARE),
    "generated_match": Metric("exact match of generated answers", HIGHER, SHARE),
    "harness_accuracy": Metric("accuracy as the evaluation harness scores", HIGHER, SHARE),
    "position_accuracy": Metric("accuracy by position", HIGHER, SHARE),
    "string_match": Metric("string match", HIGHER, SHARE),
    "stale_error": Metric("answers that no longer hold", LOWER, "share"),
    "compact_answer_token_accuracy": Metric("accuracy of the answer's tokens, compact", HIGHER, SHARE),
    "compact_exact_match": Metric("exact match, compact", HIGHER, SHARE),
    "compact_generated_match": Metric("exact match of generated answers, compact", HIGHER, SHARE),
    "compact_string_match": Metric("string match, compact", HIGHER, SHARE),
    # speed, memory and work
    "training_tokens_per_second": Metric("training throughput", HIGHER, "tokens/s"),
    "prefill_tokens_per_second": Metric("prefill throughput", HIGHER, "tokens/s"),
    "decoding_milliseconds_per_token": Metric("decoding latency", LOWER, "ms/token"),
    "training_step_seconds": Metric("time of a training step", LOWER, "seconds"),
    "training_step_cpu_seconds": Metric("CPU time of a training step", LOWER, "seconds"),
    "reading_seconds": Metric("time of reading a text", LOWER, "seconds"),
    "reading_cpu_seconds": Metric("CPU time of reading a text", LOWER, "seconds"),
    "decoding_microseconds_per_token": Metric("time of a decoded token", LOWER, "microseconds"),
    "decoding_cpu_microseconds_per_token": Metric("CPU time of a decoded token", LOWER, "microseconds"),
    "law_error": Metric("largest difference from the law in float64", LOWER, RELATIVE),
    "time_ratio": Metric("time against the reference", LOWER, "ratio"),
    "cpu_time_ratio": Metric("CPU time against the reference", LOWER, "ratio"),
    "memory_ratio": Metric("memory against the reference", LOWER, "ratio"),
    "times_the_floor": Metric("time against the matrix products alone", LOWER, "ratio"),
    "peak_memory_bytes": Metric("peak memory", LOWER, BYTES),
    "evaluation_peak_memory_bytes": Metric("peak memory of the evaluation", LOWER, BYTES),
    "state_bytes": Metric("state size", LOWER, BYTES),
    "step_flops": Metric("work of a training step", LOWER, "FLOPs"),
    "training_flops_per_token": Metric("work of training", LOWER, "FLOPs/token"),
    "matrix_product_flops_per_second": Metric("speed of a matrix product", HIGHER, "FLOP/s"),
    "finite_output": Metric("finite output", NEITHER),
    # how it came about
    "loss_in_training": Metric("loss in training", LOWER, "nats"),
    "training_loss": Metric("training loss", LOWER, "nats", True),
    "training_peak_memory_bytes": Metric("peak memory of the training", LOWER, BYTES, True),
    "training_seconds": Metric("training time", LOWER, "seconds", True),
    "evaluation_seconds": Metric("evaluation time", LOWER, "seconds", True),
    "weights_age_seconds": Metric("age of the weights", LOWER, "seconds", True),
    "timing_seconds": Metric("time that the timing took", LOWER, "seconds", True),
    "weights_error": Metric("largest difference of a logit by rounded weights", LOWER, RELATIVE, True),
    "machine_load": Metric("load of the machine", NEITHER, "", True),
    "scorer_disagreement": Metric("disagreement of the scorers", NEITHER, "", True),
    "validation_loss": Metric("validation loss", LOWER, "nats", True),
    "memory_validation_loss": Metric("validation loss with memory", LOWER, "nats", True),
    "memory_build_seconds": Metric("time of filling the memory", LOWER, "seconds", True),
    "memory_bytes": Metric("size of the memory", LOWER, BYTES, True),
    "reading_milliseconds_per_token": Metric("time of reading without memory", LOWER, "ms/token", True),
    "memory_reading_milliseconds_per_token": Metric("time of reading with memory", LOWER, "ms/token", True),
    "matched_flops_per_token": Metric("matched work of training", LOWER, "FLOPs/token", True),
}
ABOUT_TRAINING = tuple(name for name, metric in METRICS.items() if metric.is_about_training)
QUANTILES = ("_quantile_10", "_quantile_90")  # endings of metrics that tables show beside their median
ENDINGS = {"_quantile_10": ", 10 % quantile", "_quantile_90": ", 90 % quantile", "_sample": ", one round"}
OF_A_RUN = ("seconds", "microseconds", "ms/token", "tokens/s", "FLOP/s")  # units of what no two runs have the same
OF_A_PROCESS = ("training_peak_memory_bytes", "evaluation_peak_memory_bytes", "peak_memory_bytes", "machine_load")
TASK_ORDER = ("language-modelling", "needle", "babilong")


@functools.cache
def metric(name: str) -> Metric:
    """What is known of a metric, or of its quantiles and samples; raises UnknownMetricError."""
    if name in METRICS:
        return METRICS[name]
    for ending, text in ENDINGS.items():
        if name.endswith(ending) and name.removesuffix(ending) in METRICS:
            whole = METRICS[name.removesuffix(ending)]
            return whole._replace(title=whole.title + text)
    raise UnknownMetricError(
        f"There is no metric {shortened(name)}{suggestion(name, METRICS)}; its name, direction and unit are to stand in "
        "results/rows/metrics.py."
    )


def depends_on_the_run(name: str) -> bool:
    """Whether a metric is a time, a rate, or a process's memory: no two runs of one cell have the same."""
    return name in OF_A_PROCESS or metric(name).unit in OF_A_RUN


def ranked() -> list[str]:
    """The metrics of which one way is better, by name."""
    return [name for name in METRICS if is_ranked(name)]


def is_ranked(name: str) -> bool:
    """Whether a metric is known, and one way is better."""
    try:
        return bool(direction(name))
    except UnknownMetricError:
        return False


def is_accuracy(name: str) -> bool:
    """Whether values are shares of right answers, between 0 and 1."""
    return metric(name).unit == SHARE


def direction(name: str) -> int:
    """HIGHER or LOWER, whichever is better, or NEITHER."""
    return metric(name).direction


def words(name: str) -> str:
    """A name as words: "bits_per_byte" -> "bits per byte"."""
    return name.replace("_", " ")


def axis(name: str) -> str:
    """A metric in words: the full name, the unit, and which way is better."""
    return ", ".join(filter(None, [label(name), better(name)]))


def label(name: str) -> str:
    """An axis label: the full name and the unit."""
    one = metric(name)
    return f"{one.title}{f' ({one.unit})' if one.unit else ''}"


def better(name: str) -> str:
    """Which way is better, in words; "" where neither is."""
    return {HIGHER: "higher is better", LOWER: "lower is better", NEITHER: ""}[direction(name)]


def number(name: str, value: float | None) -> str:
    """A value as tables print it: shares in percent, bytes with a unit, rates with separators."""
    if value is None:
        return ""
    unit = metric(name).unit
    if unit == SHARE:
        return f"{100 * value:.1f}"
    if unit == BYTES:
        return byte_size(value)
    if unit == RELATIVE:
        return f"{value:.1e}"
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
