"""What models and cells cost before anything is measured: operations and memory from formulas."""

from __future__ import annotations

import json
from functools import cache, lru_cache

import torch
from rich.table import Table
from torch import Tensor

import tasks
from measuring import checkpoints
from measuring.building import settings_of, sized, terms
from measuring.identity import training_key
from measuring.learning import Keeping
from models import accounting, registry
from models.language_model import Match, Size, build, seeded
from models.matching import PARAMETERS
from results import search
from results.cell import Cell
from results.forecast import Cost, Standing
from results.identity import canonical
from results.metrics import byte_size
from tasks.task import Task

NUMBERS = 4  # a weight, its gradient, and the optimiser's two averages
PROBED = 30_000_000  # numbers up to which a model is run once to see what it keeps for its backward pass
BYTES = 4  # each is kept in float32
TIMED_VOCABULARY = 256  # of the model in a timing
SHORTEST = 128  # tokens of the text that shows what a forward pass keeps


def of_cell(cell: Cell, keeping: Keeping | None) -> Cost:
    """What a cell will cost: the operations of its training, the memory that it takes at least, whether it is trained already.

    Operations are those of texts of the task's training length. Memory is that of weights, gradients, optimiser, logits and
    what the forward pass keeps for the backward pass, as a short text on the CPU shows; of a large model, without the last.
    What comes and goes inside a pass, and the allocator's gaps, are on top. Where the plan matches something beside parameters:
    how near the model comes.
    """
    if cell.kind not in ("training", "trial"):
        return Cost(standing=_standing(cell, TIMED_VOCABULARY)) if cell.kind == "timing" else Cost()
    task, drawn = _asked(cell.task, canonical(cell.task_settings), canonical(cell.budget))
    is_trained = False
    if keeping is not None and cell.lr != search.UNKNOWN:
        is_trained = (keeping.folder / training_key(cell, task) / checkpoints.FACTS).exists()
    (size, match), length = terms(cell.size, task.vocab), getattr(task, "length", drawn.shape[1])
    settings, tokens = canonical(settings_of(cell)), max(length, cell.budget["batch_tokens"])
    numbers, per_token = _model(cell.model, size, match, settings, length)
    operations = None if per_token is None else per_token * cell.budget["steps"] * cell.budget["batch_tokens"]
    memory = BYTES * (NUMBERS * numbers + 2 * tokens * task.vocab)  # logits and their gradient
    if numbers <= PROBED:
        memory += round(tokens * _kept_per_token(cell.model, size, settings, match))
    return Cost(operations, memory, is_trained, _standing(cell, task.vocab))


def _standing(cell: Cell, vocab: int) -> Standing | None:
    if "match" not in cell.size:
        return None
    size, match = terms(cell.size, vocab)
    return _stands(cell.model, size, match, canonical(settings_of(cell)))


@cache
def _stands(name: str, size: Size, match: Match, settings: str) -> Standing:
    found = accounting.standing(name, size, match, **json.loads(settings))
    return Standing(found.parameters, found.reference_parameters, found.figure, found.aim)


@lru_cache(maxsize=4)
def _asked(name: str, settings: str, budget: str) -> tuple[Task, Tensor]:
    """A task and the tokens of the last batch that a training draws."""
    task, asked = tasks.create(name, **json.loads(settings)), json.loads(budget)
    return task, task.training(0, asked["steps"] - 1, 1.0, asked["batch_tokens"]).tokens


@cache
def _model(name: str, size: Size, match: Match, settings: str, length: int) -> tuple[int, float | None]:
    """All learned numbers of a model, its embedding too, and the operations of training it on one token."""
    chosen = json.loads(settings) | {"match": match}
    with torch.device("meta"):
        numbers = sum(parameter.numel() for parameter in build(name, size, **chosen).parameters())
    return numbers, accounting.training_flops_per_token(name, size, length, **chosen)


@cache
def _kept_per_token(name: str, size: Size, settings: str, match: Match = PARAMETERS) -> float:
    """Bytes that a model's forward pass keeps for its backward pass, for each token of a text of two periods or more."""
    model = seeded(name, size, 0, match=match, **json.loads(settings))
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> tuple[Tensor, torch.UntypedStorage]:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor, storage  # which is held, so that no other takes its place

    tokens = torch.zeros(1, max(SHORTEST, 2 * model.period), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held[0]):
        logits, _ = model(tokens)
    return sum(kept.values()) / tokens.numel()


def table(changed: dict[str, int], length: int) -> Table:
    """Parameters, state and operations of every model at one size and context."""
    size = sized({"vocab": 256, "width": 256, "depth": 4, "heads": 4}, changed)
    title = f"Costs at {size}, {length:,} tokens; forward and training in FLOPs per token"
    made = Table("model", "parameters", "state", "forward", "training", title=title)
    for name in registry.names():
        found = accounting.costs(name, size, length)
        work = ("no formula" if value is None else f"{value:,.0f}" for value in (found.forward, found.training))
        made.add_row(name, f"{found.parameters:,}", byte_size(found.state_bytes), *work)
    return made
