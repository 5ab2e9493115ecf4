"""A memory on a trained model: filled from its training text, open settings chosen on validation, what it costs told.

The weights are the base's, from its own training or checkpoint (`cell_key.without_memory`); nothing here changes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import tasks
from models import registry
from models.shell.added_memory import AddedMemory
from results.cell import Cell
from runner.build import settings_of
from runner.cell_key import as_trained
from runner.checkpoints.store import Checkpoint
from schema.settings import construct
from schema.terms import Progress
from tasks.harness.evaluate import validation_loss
from tasks.harness.precision import precision
from tasks.language_modelling.task import LanguageModelling
from tasks.task import Task

Measured = tuple[str | None, str, float, int, dict[str, Any]]
TIMED_TEXT = 256  # tokens of the random texts that a memory holds while it is timed


class Judged(NamedTuple):
    """The validation split read by a model: nats per asked token, how many there are, and the milliseconds of each."""

    loss: float
    count: int
    milliseconds: float


def senseless(cell: Cell) -> str:
    """Why a cell's memory has nothing to be filled with; "" where it has, and for a model without one."""
    entry = registry.entry(cell.model)
    if not entry.adds_memory or not entry.cls.stores_training(cell.settings):
        return ""
    trained = as_trained(cell).task
    if issubclass(tasks.class_of(trained), LanguageModelling):
        return ""
    return (
        f"not applicable: {cell.model} would store training texts of {trained}, which are drawn at random and say nothing of "
        "its test; train on running text (train_on), or store the text itself"
    )


def add(cell: Cell, task: Task, model: nn.Module, progress: Progress) -> tuple[nn.Module, list[Measured]]:
    """The trained model of a cell with the cell's memory, ready to be examined, and what is told of it; one without as it is."""
    entry = registry.entry(cell.model)
    if not entry.adds_memory:
        return model, []
    memory = construct(entry.cls, model, **settings_of(cell)).to(cell.device).eval()
    begun = time.perf_counter()
    with precision(cell.dtype, cell.device):
        memory.remember(_texts(cell, task, memory.entries))
    seconds = time.perf_counter() - begun
    without = _judged(cell, task, model, progress)
    tried = []
    for values in memory.candidates():
        memory.choose(values)
        tried.append((_judged(cell, task, memory, progress), values))
    best, chosen = min(tried, key=lambda one: one[0].loss)
    memory.choose(chosen)
    told = "; ".join(f"{', '.join(f'{n} {v:g}' for n, v in values.items())}: {one.loss:.4f}" for one, values in tried)
    where = {**chosen, **({"tried": told} if chosen else {})}
    return memory, [
        (None, "validation_loss", without.loss, without.count, {"memory": "off"}),
        (None, "memory_validation_loss", best.loss, best.count, where),
        (None, "memory_build_seconds", seconds, memory.entries or 1, {}),
        (None, "reading_milliseconds_per_token", without.milliseconds, without.count, {}),
        (None, "memory_reading_milliseconds_per_token", best.milliseconds, best.count, {}),
    ]


def size(model: nn.Module, state_of: Callable[[nn.Module], int]) -> list[Measured]:
    """Bytes of a memory: what it was filled with, and what one row's state has more than the base's; nothing without one."""
    if not isinstance(model, AddedMemory):
        return []
    held, more = model.contents_bytes(), max(0, state_of(model) - state_of(model.base))
    return [(None, "memory_bytes", held + more, 1, {"stored": held, "of a state": more})]


def timed(cell: Cell, model: nn.Module) -> nn.Module:
    """A fresh model as it is timed: a memory full of random texts, which acts wherever no gradient is asked for."""
    if isinstance(model, AddedMemory):
        draw, vocab = torch.Generator().manual_seed(cell.seed), model.embedding.num_embeddings
        rows = -(-model.entries // TIMED_TEXT)
        every = torch.randint(vocab, (rows, TIMED_TEXT + 1), generator=draw).to(cell.device)
        model.to(cell.device).remember((some[:, :-1], some[:, 1:]) for some in every.split(16))
        model.acts_without_gradient = True
    return model


def on_checkpoint(kept: Checkpoint, name: str, settings: dict[str, Any], provider: str, device: str) -> nn.Module:
    """The model of a checkpoint with the memory `name`, filled from the text that it was trained on. Raises ValueError."""
    if name not in registry.names() or not registry.entry(name).adds_memory:
        known = ", ".join(one for one in registry.names() if registry.entry(one).adds_memory)
        raise ValueError(f"'{name}' is no memory that is added to a trained model; there are: {known}.")
    facts = kept.facts
    base = {"base": facts["model"], "base_settings": facts["settings"]}
    names = ("size", "task", "task_settings", "budget", "seed", "lr", "dtype")
    if missing := [one for one in names if one not in facts]:
        raise ValueError(f"The checkpoint does not say its {missing[0]}, from which a memory would be filled.")
    told = {one: facts[one] for one in names}
    cell = Cell("", "training", name, {**settings, **base}, provider=provider, device=device, threads=1, **told)
    if reason := senseless(cell):
        raise ValueError(f"{reason[0].upper()}{reason[1:]}.")
    task = tasks.create(cell.task, **cell.task_settings)
    return add(cell, task, kept.model, lambda news: None)[0]


def _judged(cell: Cell, task: Task, model: nn.Module, progress: Progress) -> Judged:
    begun = time.perf_counter()
    found = validation_loss(model, task, dtype=cell.dtype, device=cell.device, progress=progress)
    return Judged(found.value, found.count, 1e3 * (time.perf_counter() - begun) / max(1, found.count))


def _texts(cell: Cell, task: Task, entries: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that the base was trained on, from its first step on, until `entries` tokens were asked in them."""
    steps, asked = cell.budget["steps"], 0
    for step in range(steps):
        if asked >= entries:
            return
        batch = task.training_task.training(cell.seed, step, step / steps, cell.budget["batch_tokens"])
        asked += int((batch.targets >= 0).sum())
        yield batch.tokens.to(cell.device), batch.targets.to(cell.device)
