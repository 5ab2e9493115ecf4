"""How many operations a second a training does: as earlier trainings on such a device did, else as stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from results.cell import Cell
from runner.schedule.forecast import Rate

Row = dict[str, Any]
# Where no training was timed on a GPU: an H100's dense peak as NVIDIA prints it, at a share that well-tuned training reaches.
PEAK = {"bfloat16": 989e12, "float32": 67e12}
UTILISATION = 0.4


def of(cell: Cell, parameters: int, past: Sequence[Row], work: Callable[[Row], float | None]) -> Rate | None:
    """The rate of the likest training among `past` on such a device: of the same model, else of the nearest size.

    `work` says the operations a token of an earlier training. Without one, a stated share of a GPU's peak; None on a CPU.
    """
    known = [row for row in past if _counts(row) and (row["device"], row["dtype"]) == (cell.device, cell.dtype)]

    def distance(row: Row) -> tuple[bool, bool, float]:
        return row["model"] != cell.model, row["task"] != cell.task, abs(math.log(row["parameters"] / parameters))

    for row in sorted(known, key=distance)[:3]:
        if (operations := work(row)) is not None:
            tokens, name = row["where"]["tokens"], f"{row['model']} on {row['task']}"
            return Rate(operations * tokens / row["value"], f"the measured rate of {name}", is_measured=True)
    if cell.device == "cuda" and cell.dtype in PEAK:
        peak = PEAK[cell.dtype]
        return Rate(
            UTILISATION * peak, f"a stated {UTILISATION:.0%} of an H100's {peak / 1e12:.0f} TFLOP/s in {cell.dtype}"
        )
    return None


def _counts(row: Row) -> bool:
    is_training = row["metric"] == "training_seconds" and row["status"] == "ok"
    return is_training and bool(row["parameters"]) and row["value"] > 0 and row["where"].get("tokens", 0) > 0
