"""The trained model of a cell: taken from its checkpoint, gone on with from a snapshot, or trained from the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from torch import nn

import schema
from models.matching.counts import parameter_count
from models.ops import providers
from results.cell import Cell
from results.rows import provenance
from results.rows.store import now
from runner.build import build
from runner.cell_key import as_trained, training_code, training_key
from runner.checkpoints import store
from runner.checkpoints.store import CheckpointError
from runner.checkpoints.teaching import teach
from schema.terms import Progress
from tasks.harness.snapshots import Snapshots
from tasks.harness.train import Training
from tasks.task import Task

Admit = Callable[[nn.Module], None]


@dataclass(frozen=True)
class CheckpointSettings:
    """Where a run keeps trained models, and every how many minutes a training in progress."""

    folder: Path
    minutes: float = 5.0


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, how it was trained, the providers that ran in training, and the seconds that a kept one is old."""

    model: nn.Module
    training: Training
    providers: set[str]
    age: float | None = None


def learn(
    cell: Cell, task: Task, checkpoints: CheckpointSettings | None, progress: Progress, admit: Admit | None = None
) -> TrainedModel:
    """The trained model of a cell. `admit` may refuse the fresh model before it is trained.

    With `checkpoints`, equal trainings are done once: the key covers what the weights depend on, not what the evaluation asks. A
    training cell's model is kept when it ends; a trial's is not. What cannot be kept or read is told in a warning.
    """
    if checkpoints is None:
        return _trained(cell, task, progress, admit, None)
    folder = checkpoints.folder / training_key(cell, task)
    with _alone(folder) as is_there:
        if not is_there:
            return _trained(cell, task, progress, admit, None)
        if (known := _known(cell, task, folder)) is not None:
            return known
        snapshots = Snapshots(folder / store.SNAPSHOT, checkpoints.minutes)
        try:
            trained_model = _trained(cell, task, progress, admit, snapshots)
        except FloatingPointError:  # it would only diverge again
            snapshots.remove()
            raise
        if cell.kind == "training":
            _keep(cell, task, folder, trained_model)
        snapshots.remove()
        with suppress(OSError):
            folder.rmdir()  # where nothing is kept
        return trained_model


def _trained(
    cell: Cell, task: Task, progress: Progress, admit: Admit | None, snapshots: Snapshots | None
) -> TrainedModel:
    model = build(cell, task.vocab)
    if admit is not None:
        admit(model)
    with providers.watch() as ran:
        log = teach(cell, model, task, progress, snapshots=snapshots)
    return TrainedModel(model, log, ran)


def _known(cell: Cell, task: Task, folder: Path) -> TrainedModel | None:
    try:
        facts = store.read_facts(folder)
        if facts is None:
            return None
        _check_code(facts, cell, task, folder)
        training, model = store.read_training(folder), build(cell, task.vocab)
        store.fill(model, folder)
    except CheckpointError as error:
        warnings.warn(f"{str(error).rstrip('.')}: the model is trained anew.", stacklevel=2)
        return None
    age = datetime.fromisoformat(now()) - datetime.fromisoformat(facts["when"])
    return TrainedModel(model.to(cell.device), training, set(facts["providers"]), age.total_seconds())


def _check_code(facts: store.Facts, cell: Cell, task: Task, folder: Path) -> None:
    """What is kept here must have been made by the code and the torch that would make it now. Raises CheckpointError."""
    for name in ("when", "providers", "versions", "code_hash"):
        if name not in facts:
            raise CheckpointError(f"{folder / store.FACTS} does not say {name}")
    then, now = facts["versions"].get("torch", ""), provenance.versions()["torch"]
    if facts["code_hash"] != training_code(cell, task):
        raise CheckpointError(f"{folder} was trained by other code")
    if then != now:
        raise CheckpointError(f"{folder} was trained under torch {schema.shortened(then)[1:-1]}, here is {now}")


def _keep(cell: Cell, task: Task, folder: Path, trained_model: TrainedModel) -> None:
    names = (
        "model",
        "settings",
        "size",
        "task",
        "task_settings",
        "seed",
        "lr",
        "budget",
        "dtype",
        "provider",
        "device",
    )
    facts = {"key": folder.name, **{name: getattr(as_trained(cell), name) for name in names}} | {
        "vocab": task.training_task.vocab,
        "parameters": parameter_count(trained_model.model),
        "providers": sorted(trained_model.providers),
        "model_files": list(cell.model_files),
        "code_hash": training_code(cell, task),
        "data_hash": task.training_task.data_hash(),
        "commit": provenance.commit(),
        "dirty": provenance.dirty(),
        "versions": provenance.versions(),
        "when": now(),
    }
    try:
        store.save(folder, trained_model.model, getattr(task, "tokenizer", None), trained_model.training, facts)
    except OSError as error:
        warnings.warn(f"The trained model could not be kept: {error}. What it is measured to stands.", stacklevel=2)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait while another process trains the same model, which will then be there; False where there can be no folder."""
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        warnings.warn(f"Nothing can be kept in {folder.parent}: {error}.", stacklevel=2)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
