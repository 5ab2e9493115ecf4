"""A trained model, ours or one of Hugging Face, is evaluated on the test of one of our tasks, for `bench.py ask`."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from torch import nn

import tasks
from models.conformance import streaming
from runner.checkpoints import added_memory, store
from runner.commands.shared.arguments import (
    SETTING,
    Command,
    add_model_files,
    add_provider,
    model_files_of,
    settings_in,
    settings_of,
)
from runner.preflight import positions
from tasks.harness.evaluate import PIECE, evaluate
from tasks.task import Task
from tasks.text.tokenizer import BYTES


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `ask`."""
    add = command.add_argument
    add("model", help="a checkpoint's folder, or a Hugging Face model's folder or hub name")
    add("task", help="a task's name; it reads text by the model's own tokenizer")
    add_model_files(command)
    add("--gguf", metavar="FILE", help="the GGUF file in the folder, of a quantised model")
    add("--set", **SETTING)
    add("--device", default="cpu", help="cpu or cuda")
    add_provider(command, "auto", "; of a checkpoint")
    add(
        "--memory",
        metavar="NAME",
        help="a memory added to a checkpoint's model, as knn-lm; --set NAME.SETTING=VALUE sets it",
    )


def ask(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a trained model, kept here or of Hugging Face, scores on the test of a task."""
    name = arguments.memory
    settings = settings_of(arguments, arguments.task, "asked", beside=name)
    memory = (name, settings_in(arguments.set).get(name, {})) if name else None
    asked = arguments.gguf, arguments.provider, arguments.device, model_files_of(arguments), memory
    console.print(asked_table(arguments.model, arguments.task, settings, *asked))
    return 0


class Answerer(NamedTuple):
    """A trained model, what to call it, and the tokenizer setting of its texts ("" where its tokens are symbols)."""

    model: nn.Module
    label: str
    tokenizer: str


def asked_table(
    name: str,
    task_name: str,
    settings: dict[str, Any],
    gguf: str | None,
    provider: str,
    device: str,
    model_files: Sequence[str] = (),
    memory: tuple[str, dict[str, Any]] | None = None,
) -> Table:
    """The marks of a task's test under `settings`, which read text by the model's own tokenizer unless they name another.

    `name` is a checkpoint's folder, or the folder or hub name of a Hugging Face model (`gguf`: the file in it);
    `model_files` are the user's own that register a checkpoint, `memory` the name and the settings of one that is added to its
    model. Raises ValueError for what is neither, for a task of other
    tokens, and for lengths that the model cannot be fed, before anything is computed.
    """
    place = Path(name)
    if not place.exists() and (place.is_absolute() or len(place.parts) > 2):  # hub names have one or two parts
        raise ValueError(
            f"There is no {name}: give a checkpoint's folder, or a Hugging Face model's folder or hub name."
        )
    with TemporaryDirectory() as folder:
        kept = (place / store.FACTS).exists()
        if memory and not kept:
            raise ValueError(
                "--memory is filled from the text that a checkpoint was trained on: give a checkpoint's folder."
            )
        mine = name, provider, device, model_files, memory
        answerer = _kept(*mine) if kept else _pretrained(name, gguf, device, Path(folder))
        task = _task(task_name, settings, answerer)
    positions.check(answerer.model, answerer.label, task)
    said = _admit(answerer.model, max(getattr(task, "test_lengths", ()), default=0))
    table = Table("metric", "asked", "value", "of", title=f"{answerer.label}, asked {task_name}", caption=said)
    for metric, value, count, where in evaluate(answerer.model, task, device=device):
        table.add_row(
            metric,
            ", ".join(f"{key} {said}" for key, said in where.items()),
            f"{value:.4f}" if math.isfinite(value) else "diverged",
            str(count),
        )
    return table


def _admit(model: nn.Module, longest: int) -> str | None:
    """How texts of `longest` tokens are read, where that had to be found out. Raises NotStreamable where they cannot be."""
    if hasattr(model, "settle"):
        return model.settle(longest, PIECE).sentence()
    if longest > PIECE:
        streaming.admit(model, longest)
    return None


def _kept(
    name: str,
    provider: str,
    device: str,
    model_files: Sequence[str],
    memory: tuple[str, dict[str, Any]] | None = None,
) -> Answerer:
    kept = store.load(name, provider, device, model_files)
    model, tokenizer, facts = kept
    setting = "" if tokenizer is None else "bytes" if tokenizer is BYTES else str(Path(name) / store.TOKENIZER)
    label = f"{facts['model']}, trained on {facts['task']}"
    if memory is None:
        return Answerer(model, label, setting)
    name, settings = memory
    return Answerer(added_memory.on_checkpoint(kept, name, settings, provider, device), f"{name} on {label}", setting)


def _pretrained(name: str, gguf: str | None, device: str, folder: Path) -> Answerer:
    from baselines.oracles.adapters import pretrained

    model = pretrained.load(name, gguf).to(device)
    label = Path(name).name
    return Answerer(model, label, str(pretrained.tokenizer_file(name, folder / label, gguf)))


def _task(name: str, settings: dict[str, Any], answerer: Answerer) -> Task:
    """The task in the model's tokens. Raises ValueError where it has others."""
    cls = tasks.classes().get(name)
    reads_text = cls is not None and "tokenizer" in inspect.signature(cls).parameters
    if reads_text and not answerer.tokenizer:
        raise ValueError(f"{answerer.label}, knows symbols alone: ask it a task of symbols, not {name}.")
    task = tasks.create(name, **({"tokenizer": answerer.tokenizer} if reads_text else {}) | settings)
    known = answerer.model.embedding.num_embeddings
    needed = task.tokenizer.vocab if reads_text else task.vocab
    if needed > known or (not reads_text and (needed < known or answerer.tokenizer)):
        raise ValueError(f"{name} under these settings has {needed} tokens, {answerer.label} knows {known} others.")
    return task


COMMANDS = {
    "ask": Command(
        "a checkpoint, or a model of Hugging Face, is evaluated on the test of a task",
        add_flags,
        ask,
        "ask .cache/checkpoints/0123456789abcdef needle --set needle.samples=20",
    )
}
