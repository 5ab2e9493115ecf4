"""What models and cells cost before anything is measured: operations and memory from formulas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from rich.table import Table
from typing_extensions import TypedDict

from models import registry
from models.conformance import costs
from models.matching.counts import training_flops
from models.matching.match import Match
from models.ops.flops import product_flops
from models.shell.model import Size
from results.cell import UNKNOWN_RATE, Cell
from results.rows.metrics import byte_size
from results.rows.row import canonical
from runner.build import ONE_VOCABULARY, at_one_vocabulary, settings_of, sized, terms, unfilled, with_provider
from runner.cell_key import as_trained, training_key_of
from runner.checkpoints import store
from runner.checkpoints.trained_model import CheckpointSettings
from runner.preflight import capacity, kept_memory, remembered
from runner.preflight.kept_memory import Kept, kept_per_token
from runner.schedule import rates
from runner.schedule.forecast import Cost
from schema import read_json
from schema.terms import MatchReport
from tasks.harness.loss import LOGITS_AT_ONCE
from tasks.outline import outline

NUMBERS = 4  # a weight, its gradient, and the optimiser's two averages
BYTES = 4  # each is kept in float32
LOGITS = (
    3  # as many numbers each are alive where their gradient is taken: their log-softmax, its gradient and their own
)
NO_VOCABULARY = 2  # where only a file that is not here would say it: the rest of the model is counted

Row = dict[str, Any]


class ForecastFacts(TypedDict):
    """What a forecast reads of a checkpoint's facts."""

    task: str
    vocab: int
    data_hash: str
    model: str
    seed: int
    lr: float
    dtype: str


def of_cell(cell: Cell, checkpoints: CheckpointSettings | None, past: rates.Trainings | None = None) -> Cost:
    """What a cell will cost: the operations of its training, the memory that it takes at least, whether it is trained already.

    From the task's settings, without its data. Operations are those of texts of the task's training length. Memory is that of
    weights, gradients and optimiser, of what the forward pass keeps, and of what the head's gradient takes (LOGITS numbers a
    logit, the gradient of the output weights). What comes and goes inside a block, the process itself, and the allocator's gaps
    are on top. `past` are rows that timed trainings: they give the rate at which those operations are done. Where the plan
    matches something beside parameters: how near the model comes.
    """
    if cell.kind not in ("training", "trial"):
        return Cost(match_report=_match_report(cell, ONE_VOCABULARY)) if cell.kind == "timing" else Cost()
    vocab, length = outline(cell.task, cell.task_settings)
    has_vocab, vocab, length = vocab is not None, vocab or NO_VOCABULARY, length or cell.budget["batch_tokens"]
    (size, match), settings = terms(cell.size, vocab), canonical(settings_of(cell))
    numbers, per_token, has_head = _model(cell.model, size, match, settings, length)
    operations = None if per_token is None else per_token * cell.budget["steps"] * cell.budget["batch_tokens"]
    tokens = max(length, capacity.at_once(cell.budget))
    kept = _kept(cell.model, replace(size, vocab=NO_VOCABULARY), settings, match, length)
    share = tokens * (0.5 if cell.dtype == "bfloat16" else 1.0)
    logits, output = (tokens * vocab, size.width * vocab) if has_vocab else (0, 0)
    if has_head:
        logits = min(logits, LOGITS_AT_ONCE)
    head = BYTES * (LOGITS * logits + output)
    passes = share / tokens * kept.of(tokens)
    most = passes + head  # where the backward pass begins
    if cell.budget.get("activation_checkpointing"):
        inputs = BYTES * size.width * tokens
        most = kept_memory.at_most_again(passes, head, size.depth, inputs, share * kept.state)
    memory = BYTES * NUMBERS * numbers + round(most)
    capacity.check_forecast(memory, f"training {cell.model} on {cell.task}")
    found = Cost(operations, memory, _is_trained(cell, checkpoints), _match_report(cell, vocab), has_vocab=has_vocab)
    found = found if checkpoints is None else replace(found, numbers=numbers)
    if operations is None:
        return found
    return replace(found, rate=cache(partial(rates.of, cell, numbers, past or {}, _row_work)))


def check_memory(cells: Sequence[Cell]) -> None:
    """Refuse a training that this machine's memory surely cannot hold, and warn of one that it may not; ValueError.

    A model that cannot be asked is passed over: its cell will be a failed row that says why.
    """
    for cell in cells:
        needed = None
        if cell.kind in ("training", "trial"):
            with suppress(Exception):
                needed = of_cell(cell, checkpoints=None).memory
        if needed:
            capacity.check_forecast_here(needed, f"Training {cell.variant or cell.model} on {cell.task}", cell.device)


def _is_trained(cell: Cell, checkpoints: CheckpointSettings | None) -> bool:
    """Whether the cell's model is kept, trained on data of any hash that a checkpoint like it had.

    A key takes the code of model and task, so none is asked for where no checkpoint names what stands in it besides.
    """
    if checkpoints is None or cell.lr == UNKNOWN_RATE:
        return False
    asked = as_trained(cell)
    known = {
        (facts["vocab"], facts["data_hash"])
        for facts in _kept_facts(checkpoints.folder)
        if all(facts[name] == getattr(asked, name) for name in ("task", "model", "seed", "lr", "dtype"))
    }
    keys = (training_key_of(cell, *one) for one in known)
    return any((checkpoints.folder / key / store.FACTS).exists() for key in keys)


def _kept_facts(folder: Path) -> tuple[ForecastFacts, ...]:
    return _facts_in(folder, folder.stat().st_mtime_ns) if folder.exists() else ()


@lru_cache(maxsize=4)  # every cell of a plan asks for those of all checkpoints
def _facts_in(folder: Path, changed: int) -> tuple[ForecastFacts, ...]:
    found = []
    for path in sorted(folder.glob(f"*/{store.FACTS}")):
        with suppress(OSError, ValueError):  # what is damaged is told where it would be used
            found.append(read_json(path, ForecastFacts))
    return tuple(found)


def _row_work(row: Row) -> float | None:
    """Operations a token of the training that an earlier row timed; None where its model or task is not here any more."""
    try:
        vocab, length = outline(row["task"], row["settings"]["task"])
        size, match = terms(row["size"], vocab or NO_VOCABULARY)
        settings = with_provider(row["model"], row["settings"]["model"], row["provider_requested"])
        return _model(row["model"], size, match, canonical(settings), length or row["budget"]["batch_tokens"])[1]
    except (ValueError, KeyError, TypeError):
        return None


def _match_report(cell: Cell, vocab: int) -> MatchReport | None:
    if "match" not in cell.size:
        return None
    size, match = terms(cell.size, vocab)
    return _solved_match(cell.model, size, match, canonical(settings_of(cell)))


@cache
def _solved_match(name: str, size: Size, match: Match, settings: str) -> MatchReport:
    return costs.match_report(name, size, match, **json.loads(settings))


@cache
def _model(name: str, size: Size, match: Match, settings: str, length: int) -> tuple[int, float | None, bool]:
    """All learned numbers of a model, its embedding too, the operations of training it on one token, whether it has a head.

    The first two grow by as much with each token of the vocabulary, as the embedding and the output that is tied to it do.
    """

    def find() -> tuple[int, float | None, bool]:
        model = unfilled(name, size, match, settings)
        numbers = sum(parameter.numel() for parameter in model.parameters())
        return numbers, training_flops(model, length), bool(getattr(model, "has_head", False))

    own, asked = json.loads(settings), (at_one_vocabulary(size), match, length)
    numbers, work, has_head = remembered.of_model("numbers and operations", name, own, asked, find)
    further = (size.vocab - ONE_VOCABULARY) * size.width
    output = product_flops(further)
    return numbers + further, None if work is None else work + output.forward + output.backward, has_head


def _kept(name: str, size: Size, settings: str, match: Match, length: int) -> Kept:
    longest, own = max(length, kept_memory.SHORT), json.loads(settings)
    if (own.get("store_every") or 0) >= length:  # no text is so long that a state is stored within it
        own["store_every"] = None
    find = partial(kept_per_token, name, size, canonical(own), match, longest)
    return Kept(*remembered.of_model("kept", name, own, (size, match, longest), find))


def table(changed: dict[str, int], length: int, names: Sequence[str] | None = None) -> Table:
    """Parameters, state and operations of every model, or of those named, at one size and context."""
    size = sized({"vocab": 256, "width": 256, "depth": 4, "heads": 4}, changed)
    capacity.check_size({"width": size.width, "depth": size.depth}, tokens=length)
    title = f"Costs at {size}, {length:,} tokens; forward and training in FLOPs per token"
    made = Table("model", "parameters", "state", "forward", "training", title=title)
    for name in registry.names() if names is None else dict.fromkeys(names):
        least = registry.entry(name).says("least_depth", {}, 1)
        if names is None and least > size.depth:
            made.add_row(name, f"from depth {least} on")
            continue
        found = costs.costs(name, size, length)
        work = ("no formula" if value is None else f"{value:,.0f}" for value in (found.forward, found.training))
        made.add_row(name, f"{found.parameters:,}", byte_size(found.state_bytes), *work)
    return made
