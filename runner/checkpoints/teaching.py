"""How a cell's model is trained: in this process, or by several that share each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import tasks
from models import user_file
from models.shell.compiled import compiled
from results.cell import Cell
from runner.build import build
from schema.terms import Progress
from tasks.harness import data_parallel
from tasks.harness.snapshots import SharedSnapshots, Snapshots
from tasks.harness.train import Training, train


def teach(
    cell: Cell, model: nn.Module, task: tasks.Task, progress: Progress, snapshots: Snapshots | None = None
) -> Training:
    """Train a cell's model in place, going on from the last of `snapshots` and taking more of them.

    Where `budget` names `parallel` and `processes`, each process trains on its rows and this one ends with all weights.
    """
    if "parallel" not in cell.budget:
        with compiled(model, cell.budget.get("compile", False)):
            return train(model, task, **_run(cell), device=cell.device, progress=progress, snapshots=snapshots)
    kind, processes = cell.budget["parallel"], cell.budget["processes"]
    data_parallel.check_rows(task, cell.seed, cell.budget["batch_tokens"], processes)
    is_kept = snapshots is not None
    with data_parallel.rank_zero(kind, processes, cell.device, worker_main, (cell, is_kept)) as group:
        shared = SharedSnapshots(snapshots) if is_kept else None
        return data_parallel.train_together(group, model, task, **_run(cell), progress=progress, snapshots=shared)


def worker_main(group: data_parallel.ProcessGroup, cell: Cell, is_kept: bool) -> None:
    """What each process but the first does: build the same model and train along, in its snapshots too if it `is_kept`."""
    torch.set_num_threads(cell.threads)
    user_file.load_files(cell.model_files, own_process=True)
    task = tasks.create(cell.task, **cell.task_settings)
    shared = SharedSnapshots() if is_kept else None
    data_parallel.train_together(group, build(cell, task.vocab), task, **_run(cell), snapshots=shared)


def _run(cell: Cell) -> dict[str, Any]:
    names = ("steps", "batch_tokens", "micro_batch_tokens", "activation_checkpointing")
    budget = {name: cell.budget[name] for name in names if name in cell.budget}
    return {**budget, "lr": cell.lr, "seed": cell.seed, "dtype": cell.dtype}
