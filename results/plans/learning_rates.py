"""The learning-rate grid: short trials judged on the validation split, and the training cells at the rate that won.

A trial is a cell as every other: its rows are kept and it is not run again. `settings["stage"]` is "trial" in its
rows and "chosen" in those of a cell whose rate came out of trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.cell import CHOSEN, TRIAL, UNKNOWN_RATE, Cell
from results.plans.toml_reader import LARGEST, PlanError, TableReader
from results.rows.row import canonical

METRIC = "validation_loss"  # nats per asked token on the validation split

Row = dict[str, Any]
Trained = Callable[[Cell], Cell]  # a cell as its weights depend on it


def as_it_is(cell: Cell) -> Cell:
    """The cell: nothing of it acts in its evaluation alone."""
    return cell


@dataclass(frozen=True)
class Search:
    """A plan's `learning_rates` and its `search`: a share of the budget and one seed for each trial."""

    rates: tuple[float, ...]
    fraction: float = 0.25
    seed: int = 0


def read(table: dict[str, Any], reader: TableReader) -> Search | None:
    """The keys `learning_rates` and `search` of a plan; None without them. Raises PlanError."""
    if "learning_rates" not in table:
        if "search" in table:
            raise PlanError(f"{reader.source}: search needs learning_rates = [..]; add them, or remove search.")
        return None
    if "learning_rate" in table:
        raise PlanError(f"{reader.source}: learning_rate and learning_rates stand side by side; keep one of them.")
    where, inner = "[search] ", reader.take(table, "search", dict, {})
    reader.refuse_unknown(inner, ("fraction", "seed"), where)
    rates = tuple(reader.take_list(table, "learning_rates", float))
    fraction = reader.take(inner, "fraction", float, Search.fraction, where)
    seed = reader.take(inner, "seed", int, Search.seed, where)
    if len(set(rates)) < 2 or len(set(rates)) < len(rates):
        raise PlanError(f"{reader.source}: learning_rates needs at least two different rates, not {list(rates)}.")
    if not 0 < fraction <= 1 or not 0 <= seed <= LARGEST:
        raise PlanError(f"{reader.source}: search takes 0 < fraction <= 1 and a seed from 0 up.")
    return Search(tuple(sorted(rates)), fraction, seed)


def trials(search: Search, cells: Iterable[Cell], as_trained: Trained = as_it_is) -> list[Cell]:
    """A trial at each rate for each model and task among those training cells whose rate is still to be chosen.

    `as_trained` gives a cell without what acts in its evaluation alone: it is trained as that cell, and takes its rate.
    """
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.stage == CHOSEN:
            trained = as_trained(cell)
            found.setdefault(_subject(trained), [_trial(search, trained, rate) for rate in search.rates])
    return [trial for group in found.values() for trial in group]


def chosen(
    search: Search,
    cells: Iterable[Cell],
    rows: Iterable[Row],
    key: Callable[[Cell], str],
    as_trained: Trained = as_it_is,
) -> list[Cell]:
    """The cells with the rate of the lowest validation loss, the lower rate of two equal ones; `key` names a cell's rows.

    A rate stays UNKNOWN_RATE while a trial has no rows yet, and where every trial failed. `as_trained` as in `trials`.
    """
    losses: dict[str, float] = {}
    seen = set()
    for row in rows:
        seen.add(row["cell"])
        if row["status"] == "ok" and row["metric"] == METRIC:
            losses[row["cell"]] = row["value"]
    best: dict[str, float] = {}
    settled = []
    for cell in cells:
        if cell.stage == CHOSEN:
            trained = as_trained(cell)
            if (subject := _subject(trained)) not in best:
                best[subject] = _best(search, trained, losses, seen, key)
            cell = replace(cell, lr=best[subject])
        settled.append(cell)
    return settled


def unsettled(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose rate is not known."""
    return [cell for cell in cells if cell.stage == CHOSEN and cell.lr == UNKNOWN_RATE]


def _best(search: Search, cell: Cell, losses: dict[str, float], seen: set[str], key: Callable[[Cell], str]) -> float:
    if not seen:
        return UNKNOWN_RATE  # a key, which reads all code that a cell uses, would find nothing
    keys = {rate: key(_trial(search, cell, rate)) for rate in search.rates}
    known = {rate: losses[one] for rate, one in keys.items() if one in losses}
    if not known or not set(keys.values()) <= seen:
        return UNKNOWN_RATE
    return min(known, key=lambda rate: (known[rate], rate))


def _trial(search: Search, cell: Cell, rate: float) -> Cell:
    full = cell.budget["steps"]
    budget = {**cell.budget, "steps": max(1, round(search.fraction * full))}
    where = {"split": "validation", "full_steps": full}
    return replace(cell, kind=TRIAL, stage=TRIAL, lr=rate, seed=search.seed, budget=budget, where=where)


def _subject(cell: Cell) -> str:
    """What a search is run for: a model under its settings, on a task under its settings, size and budget."""
    names = ("model", "variant", "settings", "task", "task_settings", "size", "budget", "dtype", "provider", "device")
    return canonical([getattr(cell, name) for name in names])
