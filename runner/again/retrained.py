"""Cells trained once more, from nothing, and their numbers held against the rows to the last digit.

What a row's predictions cannot tell, whether a training gives them, only another training can. Times and a process's memory
are left out: no two runs have the same.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from results.cell import Cell
from results.cell import counted as cells_in_words
from results.rows import labels, metrics, provenance, store
from results.rows.row import FLOOR_FAMILY, cell_of_row
from runner.cell_key import identify
from runner.measure import measure, prepare, with_own_files
from runner.schedule import schedule
from runner.schedule.progress import Display

Row = dict[str, Any]
Numbers = dict[str, tuple[float, int]]  # value and count of each metric and place


@dataclass(frozen=True)
class Repeat:
    """A cell's numbers then and now: how many there are, those that differ, and what else is not as it was then."""

    cell: str
    numbers: int
    apart: dict[str, tuple[float | None, float | None]]
    since: tuple[str, ...]

    @property
    def is_fault(self) -> bool:
        """Numbers differ though code, data, provider, torch and processor are those of then."""
        return bool(self.apart) and not self.since

    def furthest(self) -> str:
        """The number that differs most, in words; "" where none does."""
        if not self.apart:
            return ""
        name, (then, now) = max(self.apart.items(), key=lambda item: _distance(*item[1]))
        said = ["none" if value is None else f"{value:.12g}" for value in (then, now)]
        return f"{name}: {said[0]} then, {said[1]} now"


def drawn(rows: Sequence[Row], count: int | None, models: Sequence[str], chance: random.Random) -> list[list[Row]]:
    """The rows of `count` trained cells drawn at random, of `models` alone if any are named; all of them for None.

    Raises ValueError where no trained cell is left to draw from.
    """
    cells: dict[str, list[Row]] = {}
    for row in rows:
        if _is_trained(row) and (not models or labels.name_of(row) in models):
            cells.setdefault(row["cell"], []).append(row)
    if not cells:
        there = ", ".join(sorted({labels.name_of(row) for row in rows if _is_trained(row)})) or "none"
        raise ValueError(f"There is no trained cell to train again of these models; the rows hold: {there}.")
    found = list(cells.values())
    return found if count is None else chance.sample(found, min(count, len(found)))


def _is_trained(row: Row) -> bool:
    trained = row["status"] == "ok" and row["family"] != FLOOR_FAMILY and row["budget"]
    return bool(trained) and row["settings"].get("stage") != "trial"


def train_again(found: Sequence[list[Row]], workers: int, timeout: float | None, quiet: bool = False) -> list[Repeat]:
    """Train each cell of these rows again, without anything that was kept, and compare.

    A cell that fails now has none of its numbers.
    """
    cells = with_own_files([cell_of_row(rows[0]) for rows in found])
    with tempfile.TemporaryDirectory() as folder, Display(len(cells), quiet=quiet) as display:
        again = Path(folder) / "rows.jsonl"
        run = partial(schedule.run, workers=workers, timeout=timeout, initializer=prepare, on_event=display.tell)
        run(cells, partial(measure, checkpoints=None), identify, again)
        now: dict[str, list[Row]] = {}
        for row in store.read(again):
            now.setdefault(row["cell"], []).append(row)
    return [_repeat(cell, rows, now.get(identify(cell).key, [])) for cell, rows in zip(cells, found, strict=True)]


def _repeat(cell: Cell, then: list[Row], now: list[Row]) -> Repeat:
    before, after = _numbers(then), _numbers([row for row in now if row["status"] == "ok"])
    names = [*before, *(name for name in after if name not in before)]
    apart = {n: (before.get(n, (None,))[0], after.get(n, (None,))[0]) for n in names if before.get(n) != after.get(n)}
    return Repeat(cell.describe(), len(names), apart, tuple(_since(cell, then[0], now[0] if now else None)))


def _numbers(rows: list[Row]) -> Numbers:
    kept = [row for row in rows if not metrics.depends_on_the_run(row["metric"])]
    return {_name(row): (row["value"], row["count"]) for row in kept}


def _name(row: Row) -> str:
    place = ", ".join(f"{name} {value}" for name, value in sorted(row["where"].items()))
    return f"{metrics.words(row['metric'])}{f' ({place})' if place else ''}"


def _since(cell: Cell, then: Row, now: Row | None) -> list[str]:
    """What of all that decides a number's last digits is not what it was then."""
    identity, versions = identify(cell), provenance.versions()
    changed = ["code"] if identity.code_hash != then["code_hash"] else []
    changed += ["data"] if identity.data_hash != then["data_hash"] else []
    if now is not None and now["provider"] != then["provider"]:
        changed.append(f"provider ({then['provider']} then, {now['provider']} now)")
    for name, words in (("torch", "torch"), ("machine", "processor")):
        before, after = then["versions"].get(name, ""), versions.get(name, "")
        changed += [f"{words} ({before} then, {after} now)"] if before != after else []
    return changed


def _distance(then: float | None, now: float | None) -> float:
    if then is None or now is None:
        return float("inf")
    return abs(then - now) / max(abs(then), abs(now), 1e-300)


def counted(repeats: Sequence[Repeat]) -> str:
    """All cells in one sentence."""
    numbers, same = sum(r.numbers for r in repeats), sum(r.numbers - len(r.apart) for r in repeats)
    whole = sum(not r.apart for r in repeats)
    return (
        f"{cells_in_words(len(repeats))} trained again: {same} of {numbers} numbers are the rows' to the last "
        f"digit; all of them in {whole}"
    )
