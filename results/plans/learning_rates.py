"""The learning-rate grid: short trials judged on the validation split, and the training cells at the rate that won.

A trial is a cell as every other: its rows are kept and it is not run again. `settings["stage"]` is "trial" in its
rows and "chosen" in those of a cell whose rate came out of trials. While the best rate lies at an edge of the grid, the grid
grows there, for all models that claims compare with one another alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.cell import CHOSEN, TRIAL, UNKNOWN_RATE, Cell
from results.plans.toml_reader import LARGEST, PlanError, TableReader
from results.rows.row import canonical

METRIC = "validation_loss"  # nats per asked token on the validation split
MOST_WIDER = 20
ALIKE = 0.01  # share by which losses of trials must differ to say something of the rates

Row = dict[str, Any]
Trained = Callable[[Cell], Cell]  # a cell as its weights depend on it
Losses = Callable[[Cell, Sequence[float]], "dict[float, float | None] | None"]  # of a cell's trials, by rate


def as_it_is(cell: Cell) -> Cell:
    """The cell: nothing of it acts in its evaluation alone."""
    return cell


@dataclass(frozen=True)
class Search:
    """A plan's `learning_rates` and its `search`: a share of the budget, one seed for each trial, how far the grid may grow."""

    rates: tuple[float, ...]
    fraction: float = 0.25
    seed: int = 0
    widen: int = 3  # rates that may be added at each end


def read(table: dict[str, Any], reader: TableReader) -> Search | None:
    """The keys `learning_rates` and `search` of a plan; None without them. Raises PlanError."""
    if "learning_rates" not in table:
        if "search" in table:
            raise PlanError(f"{reader.source}: search needs learning_rates = [..]; add them, or remove search.")
        return None
    if "learning_rate" in table:
        raise PlanError(f"{reader.source}: learning_rate and learning_rates stand side by side; keep one of them.")
    where, inner = "[search] ", reader.take(table, "search", dict, {})
    reader.refuse_unknown(inner, ("fraction", "seed", "widen"), where)
    rates = tuple(reader.take_list(table, "learning_rates", float))
    fraction = reader.take(inner, "fraction", float, Search.fraction, where)
    seed = reader.take(inner, "seed", int, Search.seed, where)
    widen = reader.take(inner, "widen", int, Search.widen, where)
    if len(set(rates)) < 2 or len(set(rates)) < len(rates):
        raise PlanError(f"{reader.source}: learning_rates needs at least two different rates, not {list(rates)}.")
    if not 0 < fraction <= 1 or not 0 <= seed <= LARGEST or not 0 <= widen <= MOST_WIDER:
        raise PlanError(
            f"{reader.source}: search takes 0 < fraction <= 1, a seed from 0 up, and widen from 0 to {MOST_WIDER}."
        )
    return Search(tuple(sorted(rates)), fraction, seed, widen)


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
    cells: Sequence[Cell],
    rows: Iterable[Row],
    key: Callable[[Cell], str],
    as_trained: Trained = as_it_is,
    compared: Sequence[tuple[str, Collection[str]]] = (),
) -> list[Cell]:
    """The cells with the rate of the lowest validation loss, the lower rate of two equal ones; `key` names a cell's rows.

    Before them stand the trials at rates that the grid has grown by; `compared` are tasks with the names of the models that a
    claim compares there, whose grids are one. A rate stays UNKNOWN_RATE while a trial has no rows yet, and where every trial
    failed. `as_trained` as in `trials`.
    """
    losses = _losses(search, rows, key)
    subjects: dict[str, Cell] = {}
    names: dict[str, set[tuple[str, str]]] = {}
    for cell in (cell for cell in cells if cell.stage == CHOSEN):
        trained = as_trained(cell)
        subjects.setdefault(_subject(trained), trained)
        names.setdefault(_subject(trained), set()).add((cell.task, cell.variant or cell.model))
    best, wider = {}, []
    for group in _groups(names, compared):
        members = [subjects[subject] for subject in group]
        grid = _grid(search, members, losses)
        wider += [_trial(search, one, rate) for one in members for rate in grid if rate not in search.rates]
        best |= {subject: _best(losses(subjects[subject], grid)) for subject in group}
    settled = [replace(cell, lr=best[_subject(as_trained(cell))]) if cell.stage == CHOSEN else cell for cell in cells]
    return wider + settled


def is_plateau(losses: Collection[float]) -> bool:
    """Whether trials ended so much alike that they say nothing of their rates.

    >>> is_plateau([1.83, 1.84]), is_plateau([1.2, 1.84]), is_plateau([1.83])
    (True, False, False)
    """
    return len(losses) > 1 and max(losses) < (1 + ALIKE) * min(losses)


def unsettled(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose rate is not known."""
    return [cell for cell in cells if cell.stage == CHOSEN and cell.lr == UNKNOWN_RATE]


def _losses(search: Search, rows: Iterable[Row], key: Callable[[Cell], str]) -> Losses:
    """What gives the loss of each trial of a cell, None for one that failed; None for all while a trial has no rows."""
    found: dict[str, float | None] = {}
    for row in rows:
        found.setdefault(row["cell"], None)
        if row["status"] == "ok" and row["metric"] == METRIC:
            found[row["cell"]] = row["value"]

    def losses(cell: Cell, rates: Sequence[float]) -> dict[float, float | None] | None:
        if not found:
            return None  # a key, which reads all code that a cell uses, would find nothing
        keys = {rate: key(_trial(search, cell, rate)) for rate in rates}
        return {rate: found[one] for rate, one in keys.items()} if found.keys() >= set(keys.values()) else None

    return losses


def _best(losses: Mapping[float, float | None] | None) -> float:
    known = {rate: loss for rate, loss in (losses or {}).items() if loss is not None}
    return min(known, key=lambda rate: (known[rate], rate)) if known else UNKNOWN_RATE


def _grid(search: Search, members: Sequence[Cell], losses: Losses) -> list[float]:
    """The rates that all members of a group are tried at: those of the plan, and more beyond an edge at which a member is best.

    Nothing is added while a trial has no rows, nor for a member whose trials all end alike: its rate is not what it lacks.
    """
    grid, added = list(search.rates), {0: 0, -1: 0}
    while True:
        known = [losses(one, grid) for one in members]
        if any(one is None for one in known):
            return grid
        edges = {_edge(grid, one) for one in known}
        wanted = [end for end in added if end in edges and added[end] < search.widen]
        if not wanted:
            return grid
        for end in wanted:
            added[end] += 1
        lower, higher = ([_beyond(grid, end)] if end in wanted else [] for end in added)
        grid = lower + grid + higher


def _edge(grid: Sequence[float], losses: Mapping[float, float | None]) -> int | None:
    """0 where the lowest rate of the grid is the best, -1 where the highest is, None elsewhere and on a plateau."""
    if is_plateau([loss for loss in losses.values() if loss is not None]):
        return None
    return {grid[0]: 0, grid[-1]: -1}.get(_best(losses))


def _beyond(grid: Sequence[float], end: int) -> float:
    """The next rate beyond an end, as far from it as its neighbour on the other side, to three digits.

    >>> _beyond([4e-3, 8e-3, 1.6e-2], -1), _beyond([4e-3, 8e-3], 0)
    (0.032, 0.002)
    """
    edge, neighbour = (grid[0], grid[1]) if end == 0 else (grid[-1], grid[-2])
    return float(f"{edge * edge / neighbour:.3g}")


def _groups(
    names: Mapping[str, set[tuple[str, str]]], compared: Sequence[tuple[str, Collection[str]]]
) -> list[list[str]]:
    """Subjects whose grids are one: those that claims on their task compare, directly or by way of others."""
    groups = [{subject} for subject in names]
    for task, models in compared:
        wanted = {(task, model) for model in models}
        joined = [group for group in groups if any(names[subject] & wanted for subject in group)]
        groups = [group for group in groups if group not in joined]
        groups += [set().union(*joined)] if joined else []
    place = {subject: index for index, subject in enumerate(names)}
    return sorted((sorted(group, key=place.__getitem__) for group in groups), key=lambda group: place[group[0]])


def _trial(search: Search, cell: Cell, rate: float) -> Cell:
    full = cell.budget["steps"]
    budget = {**cell.budget, "steps": max(1, round(search.fraction * full))}
    where = {"split": "validation", "full_steps": full}
    return replace(cell, kind=TRIAL, stage=TRIAL, lr=rate, seed=search.seed, budget=budget, where=where)


def _subject(cell: Cell) -> str:
    """What a search is run for: a model under its settings, on a task under its settings, size and budget."""
    names = ("model", "variant", "settings", "task", "task_settings", "size", "budget", "dtype", "provider", "device")
    return canonical([getattr(cell, name) for name in names])
