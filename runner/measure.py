"""measure(cell) -> what was measured: the one call that a worker process makes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from models import registry, user_file
from models.ops import providers
from results.cell import Cell
from results.rows import store
from runner.cell_key import identify
from runner.checkpoints import added_memory
from runner.checkpoints.trained_model import CheckpointSettings
from runner.contests import contested
from runner.schedule.curves import EVERY
from runner.timing import timed
from runner.training import floors, trained, tried
from schema import surroundings
from schema.terms import Progress
from tasks.harness import snapshots
from tasks.speed import small_numbers


def prepare() -> None:
    """Naming it makes a worker import this module, and so every baseline, before its first cell."""


def with_own_files(cells: Iterable[Cell]) -> list[Cell]:
    """Cells that name the user's files of their own models alone: those of the house name none, and import none."""
    own = [user_file.files_of(name for asked in _asked(cell) for name in registry.together(*asked)) for cell in cells]
    return [replace(cell, model_files=tuple(files)) for cell, files in zip(cells, own, strict=True)]


def _asked(cell: Cell) -> list[tuple[str, dict[str, Any]]]:
    """The models of a cell with their settings; an opponent is none."""
    entrants = [(entrant["model"], entrant.get("settings", {})) for entrant in cell.entrants]
    return [(model, settings) for model, settings in [(cell.model, cell.settings), *entrants] if model]


def measure(
    cell: Cell, progress: Progress, checkpoints: CheckpointSettings | None = None
) -> store.Measured | list[dict[str, Any]]:
    """Measure one cell: train and evaluate a model, time it or several in turn, or score a task's trivial baselines.

    With `checkpoints`, trained models are kept and those that are there already are not trained again. What the cell leaves
    changed in torch or in this process is put back, and told in a warning: the next cell finds what this one found. Beside what a
    training tells of itself, `progress` is given the losses of all steps so far, after each. Subnormal numbers count as zero.
    """
    torch.set_num_threads(cell.threads)
    user_file.load_files(cell.model_files, own_process=True)
    watched = snapshots.watch_losses(lambda losses: progress({EVERY: losses}))
    with surroundings.kept() as changed, small_numbers.as_zero(), watched:
        found = _measured(cell, progress, checkpoints)
    if changed:
        warnings.warn(f"{cell.describe()} changed {', '.join(changed)}; it is put back.", stacklevel=2)
    return found


def _measured(
    cell: Cell, progress: Progress, checkpoints: CheckpointSettings | None
) -> store.Measured | list[dict[str, Any]]:
    if cell.kind == "contest":
        return contested(cell, progress)
    learns = {"trial": tried, "training": trained}
    if cell.kind in learns and (reason := added_memory.senseless(cell)):
        return store.failure(cell, identify(cell), reason, "left out")
    with providers.watch() as ran:
        if cell.kind in learns:
            measured = learns[cell.kind](cell, progress, checkpoints)
        else:
            measured = {"floors": floors, "timing": timed}[cell.kind](cell, progress)
    ran |= measured.pop("ran", set())  # a checkpoint was trained in another process
    return store.Measured(**measured, provider="+".join(sorted(ran)))
