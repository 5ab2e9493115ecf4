"""measure(cell) -> what was measured: the one call that a worker process makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from measuring.contested import contested
from measuring.learning import Keeping
from measuring.timed import timed
from measuring.trained import floors, trained, tried
from models import kernels, user_file
from results import record
from results.cell import Cell

Progress = Callable[[dict[str, Any]], None]


def prepare(model_files: Sequence[str]) -> None:
    """Register the user's own files, in the hall and again in every worker process."""
    for file in model_files:
        user_file.load_file(file)


def measure(cell: Cell, progress: Progress, keeping: Keeping | None = None) -> record.Measured | list[dict[str, Any]]:
    """Measure one cell: train and examine a model, time it or several in turn, or let a task's cheats sit the exam.

    With `keeping`, trained models are kept and those that are there already are not trained again.
    """
    torch.set_num_threads(cell.threads)
    if cell.kind == "contest":
        return contested(cell, progress)
    learns = {"trial": tried, "training": trained}
    with kernels.watch() as ran:
        if cell.kind in learns:
            measured = learns[cell.kind](cell, progress, keeping)
        else:
            measured = {"floors": floors, "timing": timed}[cell.kind](cell, progress)
    ran |= measured.pop("ran", set())  # a kept model was trained in another process
    return record.Measured(**measured, provider="+".join(sorted(ran)))
