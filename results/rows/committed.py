"""Committed rows beside this machine's, in the same tables and figures, or as what a run goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from results.cell import TRIAL
from results.rows import labels, predictions, store
from results.rows.row import FLOOR_FAMILY, canonical, exam_of

Row = dict[str, Any]
SIGN = "°"  # behind the label of a model whose rows are committed ones
MARK = "committed"  # a row's key, in memory only: it was not measured here
SETUP = tuple(name for name in labels.SETUP if name != "budget")  # a trial's budget is a part of its training's


def beside(ours: Sequence[Row], reference: Sequence[Row]) -> list[Row]:
    """`ours` and, scored, the rows of `reference` of trained models that `ours` lacks, in the evaluations that `ours` holds.

    An evaluation is a task under equal settings, data, size, budget, dtype, provider, kind of device and threads. Timings and
    side-by-side benchmarks stay out: seconds of another machine say nothing of a model.
    """
    held = {_exam(row) for row in ours if _steps(row)}
    here = {(_exam(row), _model(row)) for row in ours}
    return [
        *ours,
        *({**row, MARK: True} for row in reference if _exam(row) in held and (_exam(row), _model(row)) not in here),
    ]


def what_differs(ours: Sequence[Row], reference: Sequence[Row]) -> str:
    """Why no row of `reference` may stand beside `ours`: what the first task that both have was measured under, in each."""
    there = {row["task"]: row for row in reference if _steps(row)}
    here = next((row for row in ours if _steps(row) and row["task"] in there), None)
    if here is None:
        return "the committed rows train on none of these tasks"
    mine, other = _conditions(here), _conditions(there[here["task"]])
    found = [f"{name} {mine.get(name)} here, {other.get(name)} there" for name in mine if mine[name] != other.get(name)]
    return f"{here['task']}: {'; '.join(found)}" if found else "every model of theirs was measured here"


def fitting(
    here: Sequence[Row], reference: Sequence[Row], planned: Callable[[Sequence[Row]], Iterable[str]]
) -> list[Row]:
    """The rows of `reference` of cells that are planned and have no rows `here`: equal keys say equal code, data and settings,
    of timings the machine's kind too.

    `planned(rows)` gives the keys of the cells that these rows ask for; trials ask for more, so it is asked until nothing is new.
    Cells that failed there are left out.
    """
    there: dict[str, list[Row]] = {}
    for row in store.attempts(reference):
        there.setdefault(row["cell"], []).append(row)
    measured = {cell: rows for cell, rows in there.items() if any(row["status"] != "failed" for row in rows)}
    have, found = {row["cell"] for row in here}, []
    while new := [key for key in dict.fromkeys(planned([*here, *found])) if key in measured.keys() - have]:
        have |= set(new)
        found += [row for key in new for row in measured[key]]
    return found


def take_over(folder: Path, rows: Sequence[Row]) -> None:
    """Put rows of a comparison's `reference/`, with their cells' predictions, among the rows of its folder."""
    source, target = Path(folder) / "reference" / predictions.FOLDER, Path(folder) / predictions.FOLDER
    for cell in dict.fromkeys(row["cell"] for row in rows):
        if (packed := predictions.path_of(source, cell)).is_file():
            target.mkdir(exist_ok=True)
            shutil.copyfile(packed, predictions.path_of(target, cell))
    if rows:
        store.append(Path(folder) / "rows.jsonl", rows)


def _conditions(row: Row) -> dict[str, Any]:
    """What `_exam` compares, by name."""
    named = {"steps": _steps(row), **{name: value for name, value in row["budget"].items() if name != "steps"}}
    named |= {**row["settings"]["task"], "evaluation": exam_of(row)}
    return named | {"data": row["data_hash"], **{name: row[name] for name in SETUP}}


def _steps(row: Row) -> int | None:
    """The steps of the training that a row belongs to, a trial's those of the whole; None where nothing is trained."""
    if row["family"] == FLOOR_FAMILY or not row["budget"]:
        return None
    return row["where"].get("full_steps") if row["settings"].get("stage") == TRIAL else row["budget"]["steps"]


def _exam(row: Row) -> str:
    setup = [row[name] for name in SETUP]
    work = [_steps(row), {name: value for name, value in (row["budget"] or {}).items() if name != "steps"}]
    return canonical([row["task"], row["settings"]["task"], row["data_hash"], work, setup, exam_of(row)])


def _model(row: Row) -> str:
    return canonical([row["model"], row["settings"]["model"], row["settings"].get("variant", "")])
