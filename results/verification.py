"""Verifying a comparison: every row held against what its cell's raw predictions give when they are marked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import labels, prediction_files
from results.identity import canonical, key_of_row
from results.prediction_files import PredictionFileError

RELATIVE = 1e-9  # sums in another order differ by less
TOLD_BY_TRIALS = {"split", "full_steps"}  # what a trial's loss stands under, and its cell's key covers

Row = dict[str, Any]
Number = tuple[str, str, float, int, dict[str, Any]]  # model (of a contest the entrant), metric, value, count, where


@dataclass(frozen=True)
class Again:
    """The numbers of one cell that can be had again and from what, why not more, and whether its code is still the same."""

    numbers: Sequence[Number]
    why: str
    same_code: bool = True
    source: str = "predictions"


Rederive = Callable[
    [list[Row], list[dict[str, Any]] | None], Again
]  # of a cell's rows and its records, if any were kept


@dataclass
class Verdict:
    """What verifying found: `differences` in sentences, rows that hold, and rows that nothing can be said of, by reason."""

    held: int = 0
    differences: list[str] = field(default_factory=list)
    unknown: dict[str, list[Row]] = field(default_factory=dict)

    def cannot(self, row: Row, reason: str) -> None:
        self.unknown.setdefault(reason, []).append(row)


def verify(rows: Iterable[Row], folder: Path, rederive: Rederive) -> Verdict:
    """Hold each row against what `rederive` makes of its cell's predictions in `folder`.

    A row differs if its identity columns do not hash to its cell's key, if value or count are others, or if a number
    that the predictions give has no row (unless the code has changed since, which may mark more).
    """
    verdict, cells = Verdict(), {}
    for row in rows:
        cells.setdefault(row["cell"], []).append(row)
    for cell, mine in cells.items():
        where = next((row["where"] for row in mine if TOLD_BY_TRIALS <= set(row["where"])), {})
        for row in mine:
            expected = None if labels.is_contest(row["settings"]["task"]) else key_of_row(row, where)
            if expected not in (None, cell):
                verdict.differences.append(f"{describe(row)}: its columns are those of cell {expected}, not {cell}.")
        _cell(verdict, cell, mine, folder, rederive)
    return verdict


def _cell(verdict: Verdict, cell: str, rows: list[Row], folder: Path, rederive: Rederive) -> None:
    measured = [row for row in rows if row["status"] == "ok"]
    for row in rows:
        if row["status"] != "ok":
            verdict.cannot(row, f"{row['status']}: nothing was measured")
    if not measured:
        return
    try:
        marked = rederive(measured, prediction_files.read(folder, cell))
    except (PredictionFileError, ValueError) as error:
        verdict.differences.append(f"{describe(measured[0])}, cell {cell}: {error}")
        return
    found = {canonical([model, metric, where]): (value, count) for model, metric, value, count, where in marked.numbers}
    for row in measured:
        again = found.pop(canonical([_who(row), row["metric"], row["where"]]), None)
        if again is None:
            verdict.cannot(
                row, marked.why if marked.same_code else f"{marked.why}, or marked by code that has changed since"
            )
        elif same(row["value"], again[0]) and row["count"] == again[1]:
            verdict.held += 1
        else:
            stands, is_worth = (f"{value:.12g} over {count}" for value, count in ((row["value"], row["count"]), again))
            verdict.differences.append(f"{describe(row)}: the row says {stands}, its {marked.source} {is_worth}.")
    if found and marked.same_code:
        of = f"{measured[0]['task']}, {measured[0]['model']}, seed {measured[0]['seed']}, cell {cell}"
        verdict.differences.append(
            f"{of}: its {marked.source} give {len(found)} numbers that no row has, as {min(found)}."
        )


def _who(row: Row) -> str:
    """The model; of a contest's rows the entrant, as one model may be several."""
    return labels.name_of(row) if labels.is_contest(row["settings"]["task"]) else row["model"]


def same(one: float, other: float) -> bool:
    """Whether two numbers differ by no more than the order of a sum may change."""
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12)


def describe(row: Row) -> str:
    """A row in words: what was measured, of whom, where."""
    where = ", ".join(f"{key} {value}" for key, value in row["where"].items())
    return ", ".join(filter(None, [row["task"], row["model"], f"seed {row['seed']}", row["metric"], where]))
