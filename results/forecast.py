"""What a run will do: its cells, which of them stand already, and the time that earlier rows let one expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from results import match, record, search
from results.cell import Cell
from results.match import Standing
from results.metrics import byte_size
from results.plan import Plan

TIMES = ("training_seconds", "evaluation_seconds", "timing_seconds")
REFERENCE = "transformer"
OWN_TIME = 3.0  # seconds that a cell takes besides training and examining: building, reading data, counting state


@dataclass(frozen=True)
class Cost:
    """What a cell costs beside time: operations of its training, bytes that it takes at least; None where nobody can say.

    `is_trained`: its model is kept, so that it will only be examined. `standing`: where something beside parameters is matched.
    """

    operations: float | None = None
    memory: int | None = None
    is_trained: bool = False
    standing: Standing | None = None


def expected_seconds(cell: Cell, past: Sequence[dict[str, Any]], is_trained: bool = False) -> float | None:
    """Seconds that a cell took before, training scaled to its tokens; None without an earlier timing of model and task."""
    if cell.kind == "floors":
        return OWN_TIME
    known = [row for row in past if (row["task"], row["status"]) == (cell.task, "ok") and _same_model(row, cell)]
    if cell.is_timed:
        timed = _nearest(known, cell, "timing_seconds")
        return timed and timed["value"] + OWN_TIME
    trained, examined = (_nearest(known, cell, metric) for metric in ("training_seconds", "evaluation_seconds"))
    if examined is not None and is_trained:
        return examined["value"] + OWN_TIME
    if trained is None or examined is None:
        return None
    tokens = cell.budget["steps"] * cell.budget["batch_tokens"]
    return trained["value"] * tokens / max(1, trained["where"]["tokens"]) + examined["value"] + OWN_TIME


def is_timed_otherwise(cell: Cell, past: Sequence[dict[str, Any]]) -> bool:
    """Whether the cell's model was timed under other settings alone, which may have taken another time altogether."""
    known = [row for row in past if (row["task"], row["status"]) == (cell.task, "ok") and _same_model(row, cell)]
    return bool(cell.model and known) and all(row["settings"]["model"] != cell.settings for row in known)


def timings(results: Path) -> list[dict[str, Any]]:
    """The rows of every comparison below `results`, committed or not, that say how long a cell took."""
    files = sorted({path.with_suffix("") if path.suffix == ".xz" else path for path in results.rglob("rows.jsonl*")})
    return [row for path in files for row in _readable(path) if row["metric"] in TIMES]


def _readable(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none where it is damaged: a forecast goes on without what another comparison took."""
    try:
        return record.read(path)
    except record.RecordError:
        return []


def _same_model(row: dict[str, Any], cell: Cell) -> bool:
    """Whether a row timed the cell's model at its size, or the same contest at the same length and size."""
    same = (row["size"], row["dtype"], row["device"]) == (cell.size, cell.dtype, cell.device)
    return same and (row["where"] == cell.where if cell.kind == "contest" else row["model"] == cell.model)


def _nearest(known: Sequence[dict[str, Any]], cell: Cell, metric: str) -> dict[str, Any] | None:
    """The row that timed what is likest the cell: the same stage, settings, variant and task's settings; the last of equals.

    A trial is examined on the validation split, which takes another time.
    """

    def likeness(row: dict[str, Any]) -> tuple[bool, ...]:
        settings = row["settings"]
        stage = (settings.get("stage") == search.TRIAL) == (cell.kind == "trial")
        alike = settings["model"] == cell.settings, settings.get("variant", "") == cell.variant
        return stage, *alike, settings["task"] == cell.task_settings

    found = [row for row in known if row["metric"] == metric]
    return max(reversed(found), key=likeness, default=None)


def forecast(
    plan: Plan,
    cells: Sequence[Cell],
    key: Callable[[Cell], str],
    here: list[dict],
    past: list[dict],
    cost: Callable[[Cell], Cost] = lambda cell: Cost(),
) -> tuple[Table, str]:
    """The table of a run's cells, and one line with its time, operations and memory.

    `here` are this machine's rows, `past` any that timed a cell.
    """
    done = record.statuses(here)
    table = Table("cell", "kind", "steps", "tokens", "FLOPs", "memory from", "seconds", "state", title=plan.title)
    for name in _match_head(plan):
        table.add_column(name)
    total, unknown, otherwise, missing, work, memory = 0.0, 0, 0, 0, 0.0, 0
    for cell in cells:
        stands, costs = done.get(key(cell)), cost(cell)
        seconds = expected_seconds(cell, past, costs.is_trained)
        if stands is None:
            missing += 1
            total += (seconds or 0.0) / (1 if cell.is_timed else plan.workers)
            unknown += seconds is None
            otherwise += seconds is not None and is_timed_otherwise(cell, past)
            work += 0.0 if costs.is_trained else costs.operations or 0.0
            memory = max(memory, costs.memory or 0)
        tokens = cell.budget.get("steps", 0) * cell.budget.get("batch_tokens", 0)
        table.add_row(
            cell.describe(),
            cell.kind,
            str(cell.budget.get("steps", "")),
            f"{tokens:,}" if tokens else "",
            "" if costs.operations is None else f"{costs.operations:.1e}",
            byte_size(costs.memory),
            "unknown" if seconds is None else f"{seconds:.0f}",
            {None: "to be examined" if costs.is_trained else "to be measured", "ok": "there", "failed": "failed"}[
                stands
            ],
            *_match_cells(plan, costs.standing),
        )
    line = f"{len(cells)} cells, {missing} to be measured, about {total / 60:.1f} minutes on {plan.workers} workers"
    line += f" and {unknown} cells without an earlier timing" if unknown else ""
    line += f", {otherwise} cells timed under other settings of their model only" if otherwise else ""
    if memory:
        line += f"; {work:.1e} FLOPs of training; the largest takes {byte_size(memory)} of memory or more"
    matched = match.words(plan.match, REFERENCE)
    return table, line + (f"; matched by {matched}" if matched else "")


def _match_head(plan: Plan) -> list[str]:
    return ["parameters", f"to {REFERENCE}", *match.head(plan.match, REFERENCE)] if plan.match else []


def _match_cells(plan: Plan, standing: Standing | None) -> list[str]:
    """A model's parameters and matched figure, each with its distance to what was aimed at."""
    if not plan.match or standing is None:
        return []  # of floors
    distance = match.gap(standing.parameters, standing.reference_parameters)
    cells = match.cells(plan.match, standing.figure, standing.aim)
    return [f"{standing.parameters:,}", f"{distance:+.1f} %", *cells]
