"""Committed rows beside this machine's: models that were not measured here stand in the same tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results.cell import TRIAL
from results.rows import labels
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
