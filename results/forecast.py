"""What a run will do: its cells, which of them stand already, and the time that earlier rows let one expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from results import record, search
from results.cell import Cell
from results.plan import Plan

TIMES = ("training_seconds", "evaluation_seconds", "timing_seconds")
OWN_TIME = 3.0  # seconds that a cell takes besides training and examining: building, reading data, counting state


def expected_seconds(cell: Cell, past: Sequence[dict[str, Any]]) -> float | None:
    """Seconds that a cell took before, training scaled to its tokens; None without an earlier timing of model and task."""
    if cell.kind == "floors":
        return OWN_TIME
    known = [row for row in past if (row["task"], row["status"]) == (cell.task, "ok") and _same_model(row, cell)]
    if cell.is_timed:
        timed = _nearest(known, cell, "timing_seconds")
        return timed and timed["value"] + OWN_TIME
    trained, examined = (_nearest(known, cell, metric) for metric in ("training_seconds", "evaluation_seconds"))
    if trained is None or examined is None:
        return None
    tokens = cell.budget["steps"] * cell.budget["batch_tokens"]
    return trained["value"] * tokens / max(1, trained["where"]["tokens"]) + examined["value"] + OWN_TIME


def timings(results: Path) -> list[dict[str, Any]]:
    """The rows of every comparison below `results`, committed or not, that say how long a cell took."""
    files = sorted({path.with_suffix("") if path.suffix == ".xz" else path for path in results.rglob("rows.jsonl*")})
    return [row for path in files for row in record.read(path) if row["metric"] in TIMES]


def _same_model(row: dict[str, Any], cell: Cell) -> bool:
    """Whether a row timed the cell's model at its size, or the same contest at the same length and size."""
    same = (row["size"], row["dtype"], row["device"]) == (cell.size, cell.dtype, cell.device)
    return same and (row["where"] == cell.where if cell.kind == "contest" else row["model"] == cell.model)


def _nearest(known: Sequence[dict[str, Any]], cell: Cell, metric: str) -> dict[str, Any] | None:
    """The row that timed what is likest the cell: the same stage, variant and task's settings first; the last of equal ones.

    A trial is examined on the validation split, which takes another time.
    """

    def likeness(row: dict[str, Any]) -> tuple[bool, ...]:
        settings = row["settings"]
        stage = (settings.get("stage") == search.TRIAL) == (cell.kind == "trial")
        return stage, settings.get("variant", "") == cell.variant, settings["task"] == cell.task_settings

    found = [row for row in known if row["metric"] == metric]
    return max(reversed(found), key=likeness, default=None)


def forecast(
    plan: Plan, cells: Sequence[Cell], key: Callable[[Cell], str], here: list[dict], past: list[dict]
) -> tuple[Table, str]:
    """The table of a run's cells, and one line with its time. `here` are this machine's rows, `past` any that timed a cell."""
    done = record.statuses(here)
    table = Table("cell", "kind", "steps", "tokens", "seconds", "state", title=plan.title)
    total, unknown, missing = 0.0, 0, 0
    for cell in cells:
        stands = done.get(key(cell))
        seconds = expected_seconds(cell, past)
        if stands is None:
            missing += 1
            total += (seconds or 0.0) / (1 if cell.is_timed else plan.workers)
            unknown += seconds is None
        tokens = cell.budget.get("steps", 0) * cell.budget.get("batch_tokens", 0)
        table.add_row(
            cell.describe(),
            cell.kind,
            str(cell.budget.get("steps", "")),
            f"{tokens:,}" if tokens else "",
            "unknown" if seconds is None else f"{seconds:.0f}",
            {None: "to be measured", "ok": "there", "failed": "failed"}[stands],
        )
    line = f"{len(cells)} cells, {missing} to be measured, about {total / 60:.1f} minutes on {plan.workers} workers"
    return table, line + (f" and {unknown} cells without an earlier timing" if unknown else "")
