"""The entries of a plan: what is trained on or timed, and models under names of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from results.table_reader import TableReader


@dataclass(frozen=True)
class Entry:
    """One [[tasks]] or [[timings]] table: the task's name and settings, and what it overrides."""

    name: str
    settings: dict[str, Any]
    budget: dict[str, int] = field(default_factory=dict)
    learning_rate: float | None = None
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Variant:
    """A model under settings of its own and a name by which it is chosen and shown."""

    model: str
    settings: dict[str, Any]


def read_variant(name: str, table: dict[str, Any], reader: TableReader) -> Variant:
    """One [variants.NAME] table."""
    model = reader.take(table, "model", str, where=f"[variants.{name}] ")
    return Variant(model, {key: value for key, value in table.items() if key != "model"})


def read_entry(table: dict[str, Any], kind: str, reader: TableReader) -> Entry:
    """One [[tasks]] or [[timings]] table, as `kind` says."""
    where = f"[[{kind}]] "
    own = ("name", "models") if kind == "timings" else ("name", "models", "budget", "learning_rate")
    budget, rate = {}, None
    if kind == "tasks":
        budget = reader.numbers(table, "budget", ("steps", "batch_tokens"), where, partial=True)
        rate = reader.take(table, "learning_rate", float, None, where)
    return Entry(
        name=reader.take(table, "name", str, where=where),
        settings={key: value for key, value in table.items() if key not in own},
        budget=budget,
        learning_rate=rate,
        models=tuple(reader.take_list(table, "models", str, where=where)) if "models" in table else None,
    )
