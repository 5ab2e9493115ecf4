"""What no run may begin with: a misspelt setting, an impossible size, an absent provider, device or external implementation."""

from __future__ import annotations

import hashlib
import re
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tasks
from models import language_model, registry, user_file
from models.ops import providers
from models.shell import compiled
from results.cell import Cell
from results.plans.contests import DECODING, TRAINING
from results.rows.row import canonical
from runner.build import ONE_VOCABULARY, opponents, settings_of, terms, unfilled
from runner.preflight import capacity, remembered
from schema import shortened
from tasks.harness import data_parallel
from tasks.speed.throughput import Throughput

# Settings of which none of the house's models has 0.
HOLDING = ("inner", "states", "slots", "expansion", "chunk", "segment")


def check_cells(cells: Sequence[Cell], elsewhere: bool = False, unread: bool = False) -> None:
    """Refuse a misspelt setting, an impossible size, an absent provider or device before anything is measured.

    `elsewhere` says that another machine measures them: what this one lacks is no reason to refuse, only what none has.
    `unread` says that no data may be read, so that of a task only names and types of settings are held against its
    signature. Questions that a task must leave out, as no story fits, are told in a warning, and so are two names for
    models built alike.
    """
    seen, built, names = set(), set(), {}
    for cell in cells:
        with suppress(providers.ProviderAbsent) if elsewhere else nullcontext():
            providers.check_provider(cell.provider or "auto")
        absent = cell.device == "cuda" and not torch.cuda.is_available()
        if absent and not elsewhere:
            raise ValueError("Device cuda was asked for, but torch sees no CUDA device here; use --device cpu.")
        capacity.check_cell(cell, elsewhere)
        if not elsewhere:
            capacity.check_threads(cell.threads)
        if {**cell.budget, **cell.task_settings}.get("compile") and not elsewhere:
            compiled.check(cell.device)
        if "parallel" in cell.budget and not absent:
            data_parallel.check(cell.budget["parallel"], cell.budget["processes"], cell.device)
        if cell.kind == "contest":
            _check_contest(cell)
            continue
        what = (cell.model, repr(cell.settings), repr(cell.size), cell.task, repr(cell.task_settings), cell.provider)
        if what in seen:
            continue
        seen.add(what)
        if cell.kind == "timing":
            tasks.checked("throughput", Throughput, cell.task_settings)
        elif cell.kind == "floors" and unread:
            tasks.check_settings(cell.task, tasks.class_of(cell.task), cell.task_settings)
        elif cell.kind == "floors":
            left_out = getattr(tasks.create(cell.task, **cell.task_settings), "left_out", dict)()
            for reason in dict.fromkeys(left_out.values()):
                warnings.warn(f"{cell.task} leaves out what does not fit: {reason}", stacklevel=2)
        asked = (cell.model, repr(cell.settings), repr(cell.size), cell.provider, cell.variant)
        if cell.model and asked not in built:
            built.add(asked)
            name = cell.variant or cell.model
            other = names.setdefault(structure(cell), name)
            if other != name:
                warnings.warn(
                    f"{other} and {name} are built alike but, perhaps, for their first weights; if that is not meant, "
                    "change a setting of one, or leave one out.",
                    stacklevel=2,
                )


def structure(cell: Cell) -> str:
    """What tells the cell's model from others that are built, in a hash. Raises as `_built`."""

    def find() -> str:
        return hashlib.sha256(_structure(_built(cell)).encode()).hexdigest()

    return remembered.of_model("structure", cell.model, settings_of(cell), (cell.size, cell.settings), find)


def _built(cell: Cell) -> nn.Module:
    """The cell's model without its weights. Raises ValueError, naming its settings, where they leave it nothing to compute."""
    try:
        model = unfilled(cell.model, *terms(cell.size, ONE_VOCABULARY), canonical(settings_of(cell)))
    except Exception as error:
        if user_file.files_of([cell.model]) or not cell.settings or not _is_foreign(error):
            raise
        raise ValueError(_impossible(cell, f"{type(error).__name__}: {error}")) from error
    none = [f"{name} is 0" for name in HOLDING if cell.settings.get(name) == 0]
    if none and not user_file.files_of([cell.model]):
        raise ValueError(_impossible(cell, f"{none[0]}, which leaves it nothing to hold"))
    return model


def _is_foreign(error: Exception) -> bool:
    """Whether an error is not a sentence of ours: arithmetic that failed, or one that torch raised."""
    places = traceback.extract_tb(error.__traceback__)
    return not isinstance(error, ValueError) or (bool(places) and "torch" in Path(places[-1].filename).parts)


def _impossible(cell: Cell, why: str) -> str:
    given = ", ".join(f"{name}={shortened(value)}" for name, value in cell.settings.items())
    return f"{cell.model} cannot be built with {given} ({why}); choose other values."


def _structure(model: nn.Module) -> str:
    """What tells models apart but their first weights: modules and their code, what they hold besides tensors, shapes.

    A class is told by its module and its name: one copied into another file may be changed there in its code alone.
    """
    told = [f"{name}: {tuple(parameter.shape)}" for name, parameter in model.named_parameters()]
    for name, module in model.named_modules():
        held = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        told.append(f"{name}: {type(module).__module__}.{type(module).__qualname__} {held}")
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(told))


def _check_contest(cell: Cell) -> None:
    """Refuse a candidate that does not exist or has a wrong setting; one that cannot be built only drops out."""
    for entrant in cell.entrants:
        if entrant["opponent"]:
            opponents().check(entrant["opponent"], entrant["settings"])
            _check_opponent(cell, opponents().OPPONENTS[entrant["opponent"]], entrant["opponent"])
            continue
        entry = registry.entry(entrant["model"])
        language_model.check_settings(entry, entrant["settings"])
        if cell.task_settings["level"] != "model" and entry.is_language_model:
            raise ValueError(
                f"'{entry.name}' is a whole language model and has no layer to time; name it in a benchmark "
                "([[contests]]) of level 'model'."
            )


def _check_opponent(cell: Cell, opponent: Any, name: str) -> None:
    """Refuse an external implementation that cannot do what the benchmark asks."""
    direction = cell.task_settings.get("direction", TRAINING)
    if not opponent.decodes and direction == DECODING:
        raise ValueError(
            f"'{name}' has no form of one token; name it in a benchmark ([[contests]]) of another direction."
        )
    if not opponent.trains and direction == TRAINING:
        raise ValueError(f"'{name}' has no gradient; name it in a benchmark ([[contests]]) of direction 'reading'.")
    if not opponent.shares_layer and cell.task_settings["level"] == "operation":
        raise ValueError(f"'{name}' is a whole layer of another package; name it in a benchmark of level 'layer'.")
