"""Verifying a comparison: every row held against what its cell's raw predictions give when they are scored again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.rows import labels, predictions, store
from results.rows.predictions import PredictionFileError
from results.rows.row import FLOOR_FAMILY, canonical, exam_of, key_of_row
from schema import shortened

# Where a run went on with weights that were kept, it has their age and no memory of the training.
OF_THE_RUN = ("training_peak_memory_bytes", "weights_age_seconds")
LEAST_ALIKE = 2  # seeds that must agree on what there is before another is said to lack it
SAME_BUT_SEED = (
    "task",
    "model",
    "settings",
    "size",
    "lr",
    "budget",
    "dtype",
    "device",
    "provider_requested",
    "code_hash",
)
RELATIVE = 1e-9  # sums in another order differ by less
TOLD_BY_TRIALS = {"split", "full_steps"}  # what a trial's loss stands under, and its cell's key covers

DEVICES = ("cpu", "cuda")

Row = dict[str, Any]
Number = tuple[
    str, str, float, int, dict[str, Any]
]  # model (of a side-by-side benchmark the candidate), metric, value, count, where


@dataclass(frozen=True)
class Again:
    """The numbers of one cell that can be had again and from what, why not more, and whether its code is still the same.

    `exam` is the version of the task's evaluation today. A number that is NaN was lost: no row may have it.
    """

    numbers: Sequence[Number]
    why: str
    same_code: bool = True
    source: str = "predictions"
    exam: int = 1


@dataclass(frozen=True)
class AnyOf:
    """The names of which a column may hold any, joined by "+"."""

    names: tuple[str, ...]

    def __eq__(self, told: object) -> bool:
        return isinstance(told, str) and set(told.split("+")) <= set(self.names)

    def __str__(self) -> str:
        return f"made of {', '.join(filter(None, self.names))}"


Rederive = Callable[
    [list[Row], list[dict[str, Any]] | None], Again
]  # of a cell's rows and its records, if any were kept
Rebuild = Callable[[list[Row]], dict[str, Any]]  # of one model's rows in a cell: columns and what they must hold


@dataclass
class Verification:
    """What verifying found.

    `differences` in sentences, rows that hold, rows that nothing can be said of and rows of another evaluation, by reason, and
    `notes` on what differs from code that has changed since, with how many cells they are of.
    """

    held: int = 0
    differences: list[str] = field(default_factory=list)
    unknown: dict[str, list[Row]] = field(default_factory=dict)
    earlier: dict[str, list[Row]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def cannot(self, row: Row, reason: str) -> None:
        self.unknown.setdefault(reason, []).append(row)

    def note(self, text: str) -> None:
        self.notes[text] = self.notes.get(text, 0) + 1


def verify(
    rows: Iterable[Row], folder: Path, rederive: Rederive, rebuild: Rebuild | None = None, comparison: str | None = None
) -> Verification:
    """Hold each row against what `rederive` makes of its cell's predictions in `folder`, and `rebuild` of its model.

    A row differs if its identity columns do not hash to its cell's key, if value or count are others, if it stands twice,
    is another comparison's or of an unknown device, if family, parameters, state or provider are not the model's, or if a
    number that the predictions give has no row (unless the code has changed since, which may score more).
    """
    verdict, cells, rows = Verification(), {}, list(rows)
    for row in store.doubled(rows):
        verdict.differences.append(f"{describe(row)}, cell {row['cell']}: the row stands more than once.")
    try:
        rows = store.attempts(rows)
    except store.RecordError as error:
        verdict.differences.append(str(error))
        return verdict
    for row in rows:
        cells.setdefault(row["cell"], []).append(row)
    verdict.differences += _lost(cells)
    for cell, mine in cells.items():
        where = next((row["where"] for row in mine if TOLD_BY_TRIALS <= set(row["where"])), {})
        for row in mine:
            _identity(verdict, row, where, comparison)
        _cell(verdict, cell, mine, folder, rederive, rebuild)
    return verdict


def _lost(cells: dict[str, list[Row]]) -> list[str]:
    """What one seed of a model lacks that each of its others has: a row that nothing gives again is missed in no other way."""
    seeds: dict[str, list[tuple[Row, set[str]]]] = {}
    for rows in cells.values():
        ok = [row for row in rows if row["status"] == "ok"]
        found = {f"{row['metric']} {canonical(row['where'])}" for row in ok if row["metric"] not in OF_THE_RUN}
        same = {column: rows[0][column] for column in SAME_BUT_SEED} | {"exam": exam_of(rows[0])}
        if found and not labels.is_contest(rows[0]["settings"]["task"]):
            seeds.setdefault(canonical(same), []).append((rows[0], found))
    lost = []
    for group in seeds.values():
        for row, found in group if len(group) > LEAST_ALIKE else ():
            others = [metrics for other, metrics in group if other is not row]
            lost += [
                f"{row['task']}, {row['model']}, seed {row['seed']}, cell {row['cell']}: {name} has no row, though all other "
                f"{len(others)} seeds have one."
                for name in sorted(set.intersection(*others) - found)
            ]
    return lost


def _identity(verdict: Verification, row: Row, where: dict[str, Any], comparison: str | None) -> None:
    """Hold a row's identity columns against its cell's key and the comparison that it lies in."""
    if comparison is not None and row["comparison"] != comparison:
        of = row["comparison"]
        verdict.differences.append(f"{describe(row)}: it is a row of the comparison {of!r}, not of {comparison!r}.")
    if row["device"] not in DEVICES:
        verdict.differences.append(f"{describe(row)}: no device is called {row['device']!r}.")
    if labels.is_contest(row["settings"]["task"]):
        return
    expected, cell = key_of_row(row, where), row["cell"]
    if row["device"] == "cpu" and expected != cell:
        verdict.differences.append(f"{describe(row)}: its columns are those of cell {expected}, not {cell}.")
    elif row["device"] == "cuda" and expected == cell:
        verdict.differences.append(f"{describe(row)}: its cell {cell} was measured on a cpu, not on cuda.")
    elif row["device"] == "cuda":
        verdict.note("keys of cells on cuda hash the name of a GPU that no column tells, so they are not checked")


def _cell(
    verdict: Verification, cell: str, rows: list[Row], folder: Path, rederive: Rederive, rebuild: Rebuild | None
) -> None:
    measured = [row for row in rows if row["status"] == "ok"]
    for row in rows:
        if row["status"] != "ok":
            verdict.cannot(row, f"{row['status']}: nothing was measured")
    if not measured:
        return
    try:
        marked = rederive(measured, predictions.read(folder, cell))
    except (PredictionFileError, ValueError) as error:
        verdict.differences.append(f"{describe(measured[0])}, cell {cell}: {error}")
        return
    if rebuild is not None:
        _facts(verdict, cell, measured, marked.same_code, rebuild)
    if marked.exam != exam_of(measured[0]):
        asked = f"{measured[0]['task']}: exam {exam_of(measured[0])}, today's is {marked.exam}"
        verdict.earlier.setdefault(asked, []).extend(measured)
        return
    _numbers(verdict, cell, measured, marked)


def _numbers(verdict: Verification, cell: str, measured: list[Row], marked: Again) -> None:
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
    more = [name for name, (value, _) in found.items() if math.isfinite(value)]
    if more and marked.same_code:
        of = f"{measured[0]['task']}, {measured[0]['model']}, seed {measured[0]['seed']}, cell {cell}"
        verdict.differences.append(
            f"{of}: its {marked.source} give {len(more)} numbers that no row has, as {min(more)}."
        )
    elif more:
        what = "floors" if measured[0]["family"] == FLOOR_FAMILY else "numbers"
        verdict.note(f"{measured[0]['task']}: today's code gives further {what} that the rows do not have")


def _facts(verdict: Verification, cell: str, measured: list[Row], same_code: bool, rebuild: Rebuild) -> None:
    """Hold family, parameters, state and provider of each model of a cell against the model as it is built here."""
    by_model: dict[tuple[str, str], list[Row]] = {}
    for row in measured:
        name = "" if row["family"] == FLOOR_FAMILY else row["model"]
        by_model.setdefault((name, row["settings"].get("variant", "")), []).append(row)
    for (name, _), rows in by_model.items():
        try:
            facts = rebuild(rows)
        except (ValueError, LookupError, OSError, ImportError, RuntimeError, TypeError) as error:
            verdict.note(f"{name or 'floors'}: cannot be built again here ({shortened(str(error), 160)})")
            continue
        for column, wanted in facts.items():
            for told in {row[column] for row in rows if not wanted == row[column]}:
                text = f"{rows[0]['task']}, {name or 'floors'}, seed {rows[0]['seed']}, cell {cell}: {column}"
                if same_code:
                    verdict.differences.append(f"{text} is {told!r} in the rows, built again it is {wanted}.")
                else:
                    verdict.note(
                        f"{name or 'floors'}: {column} is {told!r} in rows, {wanted} by code that has changed since"
                    )


def _who(row: Row) -> str:
    """The model; of a side-by-side benchmark's rows the candidate, as one model may be several."""
    return labels.name_of(row) if labels.is_contest(row["settings"]["task"]) else row["model"]


def same(one: float, other: float) -> bool:
    """Whether two numbers differ by no more than the order of a sum may change."""
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12)


def describe(row: Row) -> str:
    """A row in words: what was measured, of whom, where."""
    where = ", ".join(f"{key} {value}" for key, value in row["where"].items())
    return ", ".join(filter(None, [row["task"], row["model"], f"seed {row['seed']}", row["metric"], where]))
