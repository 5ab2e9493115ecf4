"""What rows took: processor hours, GPU hours, tokens and memory, as far as the rows say so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
TRAINING, TIMING = "training_seconds", "timing_seconds"
SECONDS = (TRAINING, "evaluation_seconds", TIMING, "memory_build_seconds")
PEAKS = ("training_peak_memory_bytes", "evaluation_peak_memory_bytes", "peak_memory_bytes")


@dataclass(frozen=True)
class Effort:
    """Sums over cells. Building models, reading data and the trivial baselines are not timed, so they are in none of them."""

    side_by_side: float = 0.0  # seconds of cells that train, of which a plan's workers measure several at a time
    alone: float = 0.0  # seconds of cells that time, one after another
    core_seconds: float = 0.0  # seconds times threads and processes, on processors
    gpu_seconds: float = 0.0  # seconds times processes, on GPUs
    tokens: int = 0  # trained on
    cells: int = 0  # that have a time
    untimed: int = 0  # that have none: trivial baselines, failures
    failed: int = 0
    peak_bytes: float | None = None

    def minutes(self, workers: int) -> float | None:
        """Minutes that the same takes with this many workers side by side; None where nothing was timed."""
        return (self.side_by_side / max(1, workers) + self.alone) / 60 if self.cells else None


def effort(rows: Iterable[Row], takes_part: Callable[[Row], bool] = lambda row: True) -> Effort:
    """What the cells of these rows took, of those rows that take part; a training that several cells examine counts once."""
    cells: dict[str, list[Row]] = {}
    for row in rows:
        if takes_part(row):
            cells.setdefault(row["cell"], []).append(row)
    seen: set[tuple] = set()
    found = [_of_cell(own, seen) for own in cells.values()]
    peaks = [one.peak_bytes for one in found if one.peak_bytes is not None]
    names = ("side_by_side", "alone", "core_seconds", "gpu_seconds", "tokens", "cells", "untimed", "failed")
    return Effort(
        **{name: sum(getattr(one, name) for one in found) for name in names}, peak_bytes=max(peaks, default=None)
    )


def _of_cell(rows: Sequence[Row], seen: set[tuple]) -> Effort:
    timed = [row for row in rows if row["metric"] in SECONDS and row["status"] == "ok"]
    fresh = [row for row in timed if not _is_known(row, seen)]
    seconds, first = sum(row["value"] for row in fresh), rows[0]
    processes, on_gpu = first["budget"].get("processes", 1), first["device"] == "cuda"
    is_alone = any(row["metric"] == TIMING for row in timed)
    peaks = [row["value"] for row in rows if row["metric"] in PEAKS and row["status"] == "ok"]
    return Effort(
        side_by_side=0.0 if is_alone else seconds,
        alone=seconds if is_alone else 0.0,
        core_seconds=0.0 if on_gpu else seconds * first["threads"] * processes,
        gpu_seconds=seconds * processes if on_gpu else 0.0,
        tokens=sum(row["where"].get("tokens", 0) for row in fresh if row["metric"] == TRAINING),
        cells=int(bool(timed)),
        untimed=int(not timed),
        failed=int(any(row["status"] == "failed" for row in rows)),
        peak_bytes=max(peaks, default=None),
    )


def _is_known(row: Row, seen: set[tuple]) -> bool:
    """Whether the same stretch of time was counted: candidates of one contest share theirs, and cells a training's weights."""
    if row["metric"] not in (TRAINING, TIMING):
        return False
    whose = (row["cell"],) if row["metric"] == TIMING else (row["model"], row["seed"])
    same = (
        row["metric"],
        *whose,
        row["value"],
    )  # seconds of a clock: two stretches never take the same to the last digit
    found = same in seen
    seen.add(same)
    return found
