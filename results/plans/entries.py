"""The entries of a plan: what is trained on or timed, and models under names of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from results.plans.toml_reader import PlanError, TableReader
from schema import shortened, suggestion

BUDGET = ("steps", "tokens", "batch_tokens", "micro_batch_tokens")
CHECKPOINTING = "activation_checkpointing"  # of a budget too, but true or false
MEMORY = ("micro_batch_tokens", CHECKPOINTING)  # what of a budget saves memory and changes numbers by rounding alone
TIMINGS = ("throughput",)  # what a [[timings]] table may name
MOST_ROUNDS = 100


@dataclass(frozen=True)
class TaskEntry:
    """One [[tasks]] or [[timings]] table: the task's name and settings, and what it overrides.

    `learning_rate_of`: the rate of single models or variants, before the task's and the plan's.
    `rounds`: how often every model is timed, all models in turn, so that a claim about speed has repeats to rest on.
    """

    name: str
    settings: dict[str, Any]
    budget: dict[str, int] = field(default_factory=dict)
    learning_rate: float | None = None
    models: tuple[str, ...] | None = None
    rounds: int = 1
    learning_rate_of: dict[str, float] = field(default_factory=dict)

    def rate_of(self, model: str) -> float | None:
        """The learning rate that the task gives a model, or a variant; None where it leaves that to the plan."""
        return self.learning_rate_of.get(model, self.learning_rate)


@dataclass(frozen=True)
class ModelVariant:
    """A model under settings of its own and a name by which it is chosen and shown."""

    model: str
    settings: dict[str, Any]


def read_variant(name: str, table: dict[str, Any], reader: TableReader) -> ModelVariant:
    """One [variants.NAME] table."""
    model = reader.take(table, "model", str, where=f"[variants.{name}] ")
    return ModelVariant(model, {key: value for key, value in table.items() if key != "model"})


def read_entry(table: dict[str, Any], kind: str, reader: TableReader) -> TaskEntry:
    """One [[tasks]] or [[timings]] table, as `kind` says."""
    where = f"[[{kind}]] "
    own = (
        ("name", "models", "rounds")
        if kind == "timings"
        else ("name", "models", "budget", "learning_rate", "learning_rate_of")
    )
    budget, rate, rate_of, rounds = {}, None, {}, 1
    if kind == "tasks":
        budget = _budget(table, reader, where)
        if {"steps", "tokens"} <= set(budget):
            raise PlanError(f"{reader.source}: {where}budget takes steps or tokens, not both.")
        rate = reader.take(table, "learning_rate", float, None, where)
        rates = reader.take(table, "learning_rate_of", dict, {}, where)
        rate_of = {model: reader.take(rates, model, float, where=f"{where}learning_rate_of ") for model in rates}
    else:
        rounds = reader.take(table, "rounds", int, 1, where)
        if not 1 <= rounds <= MOST_ROUNDS:
            raise PlanError(f"{reader.source}: {where}rounds is {rounds}; take 1 to {MOST_ROUNDS}.")
    name = reader.take(table, "name", str, where=where)
    if kind == "timings" and name not in TIMINGS:
        word = f"{shortened(name)}{suggestion(name, TIMINGS)}"
        raise PlanError(f"{reader.source}: {where}there is no timing {word}; known: {', '.join(TIMINGS)}.")
    return TaskEntry(
        name=name,
        settings={key: value for key, value in table.items() if key not in own},
        budget=budget,
        learning_rate=rate,
        models=tuple(reader.take_list(table, "models", str, where=where)) if "models" in table else None,
        rounds=rounds,
        learning_rate_of=rate_of,
    )


def read_budget(table: dict[str, Any], reader: TableReader) -> dict[str, int]:
    """The plan's [budget] as it stands there: batch_tokens, either steps or tokens, and what saves memory."""
    budget = _budget(table, reader)
    if "batch_tokens" not in budget or ("steps" in budget) == ("tokens" in budget):
        raise PlanError(f"{reader.source}: [budget] takes batch_tokens, and either steps or tokens.")
    return budget


def _budget(table: dict[str, Any], reader: TableReader, where: str = "") -> dict[str, int]:
    """A table [budget], with any of the keys that it may have; what is switched off is left out."""
    given = dict(reader.take(table, "budget", dict, {}, where))
    checkpointing = reader.take(given, CHECKPOINTING, bool, False, f"{where}[budget] ")
    given.pop(CHECKPOINTING, None)
    budget = reader.numbers({"budget": given}, "budget", BUDGET, where, partial=True)
    return budget | ({CHECKPOINTING: True} if checkpointing else {})


def in_steps(plan: Mapping[str, int], own: Mapping[str, int]) -> dict[str, int]:
    """The plan's budget with an entry's `own` changes, in the fewest steps that reach its tokens where it names those."""
    theirs = {"steps", "tokens"} if {"steps", "tokens"} & set(own) else set()
    budget = {key: value for key, value in plan.items() if key not in theirs}
    budget |= own
    if "tokens" in budget:
        batch = budget["batch_tokens"]
        budget["steps"] = math.ceil(budget.pop("tokens") / batch) if batch > 0 else 0
    return {name: budget[name] for name in ("steps", "batch_tokens", *MEMORY) if name in budget}
