"""How many operations a second a training does: as earlier trainings on such a device did, else as stated."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from results.cell import Cell
from runner.schedule.forecast import Rate

Row = dict[str, Any]
# Where no training was timed on a GPU: an H100's dense peak as NVIDIA prints it, at a share that well-tuned training reaches.
PEAK = {"bfloat16": 989e12, "float32": 67e12}
UTILISATION = 0.4


Trainings = Mapping[tuple[str, str], Sequence[Row]]  # earlier ones that were timed, by device and dtype


def trainings(past: Sequence[Row]) -> Trainings:
    """The rows among `past` that timed a training, by device and dtype: sorted out once for all cells of a plan.

    Of rows of one model, task and size the first alone: `of` would hold each of them against every cell.
    """
    found: dict[tuple[str, str], dict[tuple, Row]] = defaultdict(dict)
    for row in filter(_counts, past):
        found[row["device"], row["dtype"]].setdefault((row["model"], row["task"], row["parameters"]), row)
    return {kind: list(rows.values()) for kind, rows in found.items()}


def of(cell: Cell, parameters: int, past: Trainings, work: Callable[[Row], float | None]) -> Rate | None:
    """The rate of the likest training among `past` on such a device: of the same model, else of the nearest size.

    `work` says the operations a token of an earlier training. Without one, a stated share of a GPU's peak; None on a CPU.
    """

    def distance(row: Row) -> tuple[bool, bool, float]:
        return row["model"] != cell.model, row["task"] != cell.task, abs(math.log(row["parameters"] / parameters))

    for row in heapq.nsmallest(3, past.get((cell.device, cell.dtype), ()), key=distance):
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
