"""The models and layers of cells: built from a cell's settings, its size and its seed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import torch

import baselines  # noqa: F401  registers every baseline, in worker processes too
from models import language_model, registry
from models.matching.match import PARAMETERS, Match
from models.matching.shapes_only import shapes_only
from models.matching.solver import solved
from models.shell.model import Size, assemble, layer_arguments
from results.cell import Cell
from schema.settings import construct, parameters

ONE_VOCABULARY = 256  # of models of which only shapes are asked


def build(cell: Cell, vocab: int) -> torch.nn.Module:
    """A cell's model as its seed initialises it."""
    size, match = terms(cell.size, vocab)
    return language_model.seeded(cell.model, size, cell.seed, match=match, **settings_of(cell))


def unfilled(name: str, size: Size, match: Match, settings: str) -> torch.nn.Module:
    """A model without memory for its weights, at ONE_VOCABULARY: cells that differ in task, seed or rate share it.

    `settings` as JSON. Raises ValueError as `language_model.build`.
    """
    return _unfilled(registry.entry(name), at_one_vocabulary(size), match, settings)


def at_one_vocabulary(size: Size) -> Size:
    """The size at which shapes are asked for the cells of all tasks, whatever their vocabularies."""
    return replace(size, vocab=ONE_VOCABULARY)


@cache
def _unfilled(entry: registry.Entry, size: Size, match: Match, settings: str) -> torch.nn.Module:
    own = json.loads(settings)
    language_model.check_settings(entry, own)
    shape, found = solved(entry, size, own, match)
    if found is None:
        with shapes_only():
            found = assemble(entry, size, shape, own)
    return found


def terms(size: dict[str, Any], vocab: int) -> tuple[Size, Match]:
    """The size that a cell names, and what it matches: its `size` says both. Raises ValueError."""
    fields = {name: size[name] for name in ("width", "depth", "heads")}
    match = {name: size[name] for name in ("state_bytes", "flops_length") if name in size}
    return Size(vocab, **fields), Match(size.get("match", PARAMETERS.by), **match)


def sized(fields: dict[str, int], changed: dict[str, int]) -> Size:
    """A size of these fields, some of them changed. Raises ValueError where another field is named."""
    if unknown := set(changed) - set(fields):
        raise ValueError(f"--size knows {', '.join(fields)}, not {', '.join(sorted(unknown))}.")
    return Size(**fields | changed)


def settings_of(cell: Cell) -> dict[str, Any]:
    """The settings of a cell's model, its provider among them."""
    return with_provider(cell.model, cell.settings, cell.provider)


def with_provider(model: str, settings: dict[str, Any], provider: str) -> dict[str, Any]:
    """A model's settings with the provider asked for, unless they name one or it is not meant for the model."""
    entry = registry.entry(model)
    is_meant = "provider" in parameters(entry.cls) and entry.takes(provider)
    return {"provider": provider, **settings} if is_meant else dict(settings)


def layer(cell: Cell, entrant: dict[str, Any]) -> torch.nn.Module:
    """The mixer alone, of ours or of an external implementation's."""
    width, heads = cell.size["width"], cell.size["heads"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        if entrant["opponent"]:
            return opponents().build(entrant["opponent"], width, heads, **cell.settings)
        mixer = registry.entry(cell.model).cls
        return construct(mixer, width, heads, **layer_arguments(mixer, 0, 1), **settings_of(cell))


def opponents() -> ModuleType:
    """Other people's code; imported where a side-by-side benchmark names it, so that a broken baseline stops nothing else."""
    from baselines.oracles.adapters import opponents

    return opponents
