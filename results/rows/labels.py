"""Which rows belong to one line of a table, what that line is called, and which rows are out of date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results.cell import CHOSEN
from results.rows.row import FLOOR_FAMILY, canonical

Row = dict[str, Any]
SETUP = ("size", "budget", "dtype", "provider_requested", "device", "threads")


def is_contest(task_settings: Mapping[str, Any]) -> bool:
    """Whether the rows of a task under these settings are those of candidates timed in turn."""
    return {"level", "reference"} <= set(task_settings)


def variant_key(row: Row) -> str:
    """What tells models of a task apart: their name, settings and learning rate."""
    settings = row["settings"]
    rate = CHOSEN if settings.get("stage") == CHOSEN else row["lr"]  # each task may have chosen another
    return canonical(
        [row["family"] == FLOOR_FAMILY, row["model"], settings["model"], rate, settings.get("variant", "")]
    )


def labels(rows: list[Row]) -> dict[str, str]:
    """Label of each (model, settings, learning rate): a variant's own name, or the model's and what tells it from others."""
    settings: dict[str, dict[str, Row]] = {}
    rates: dict[str, dict[str, set[float | str]]] = {}
    for row in rows:
        if row["family"] != FLOOR_FAMILY:
            if "variant" not in row["settings"]:
                settings.setdefault(row["model"], {})[canonical(row["settings"]["model"])] = row
            exam = canonical([row["task"], row["settings"]["task"], [row[name] for name in SETUP]])
            rates.setdefault(name_of(row), {}).setdefault(exam, set()).add(
                CHOSEN if row["settings"].get("stage") == CHOSEN else row["lr"]
            )
    found = {}
    for row in rows:
        name, chosen = name_of(row), dict(row["settings"]["model"])
        if row["family"] == FLOOR_FAMILY:
            continue
        parts = [f"{key}={value}" for key, value in sorted(chosen.items())] or ["default"]
        parts = parts if "variant" not in row["settings"] and len(settings[name]) > 1 else []
        if any(len(rate) > 1 for rate in rates[name].values()):
            parts.append("lr chosen" if row["settings"].get("stage") == CHOSEN else f"lr={row['lr']:g}")
        found[variant_key(row)] = f"{name} ({', '.join(parts)})" if parts else name
    return found


def name_of(row: Row) -> str:
    """The variant's name, or the model's."""
    return row["settings"].get("variant") or row["model"]


def newest(rows: list[Row]) -> list[Row]:
    """Of cells that differ only in the hashes of code and data, the one measured last: the others are out of date."""
    latest: dict[str, tuple[str, str]] = {}

    def same(row: Row) -> str:
        floor = row["family"] == FLOOR_FAMILY
        setup = [] if floor else [variant_key(row), row["seed"], [row[name] for name in SETUP]]
        setup += [row["where"].get("length")] if is_contest(row["settings"]["task"]) else []
        return canonical([floor, row["comparison"], row["task"], row["settings"]["task"], setup])

    known = [(row, same(row)) for row in rows]
    for row, what in known:
        latest[what] = max(latest.get(what, ("", "")), (row["when"], row["cell"]))
    return [row for row, what in known if latest[what] == (row["when"], row["cell"])]
