"""What a row is: its columns, a cell's key, and the making of rows from a cell and what was measured."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from results.cell import Cell
from results.rows import provenance
from results.rows.columns import COLUMNS, NO_NUMBER, SCHEMA, check

__all__ = ["COLUMNS", "FLOOR_FAMILY", "FLOOR_ORDER", "NO_NUMBER", "SCHEMA", "Identity", "Measured", "canonical"]
__all__ += ["cell_of_row", "check", "diverged", "exam_of", "failure", "key", "key_of_row", "now", "one_attempt", "rows"]

FLOOR_FAMILY, FLOOR_ORDER = "floor", 99
LONGEST = 300  # letters of a reason


@dataclass(frozen=True)
class Identity:
    """What the hall knows of a cell before it is measured."""

    key: str
    family: str = ""
    family_order: int = 0
    code_hash: str = ""
    data_hash: str = ""
    families: dict[str, tuple[str, int]] = field(
        default_factory=dict
    )  # of a side-by-side benchmark's candidates, by name
    exam: int = 1  # the version of the task's evaluation

    def of(self, entrant: str) -> Identity:
        """The identity as one of a side-by-side benchmark's candidates' rows carry it."""
        family, order = self.families.get(entrant, ("", 0))
        return replace(self, family=family, family_order=order, families={})


@dataclass(frozen=True)
class Measured:
    """What measuring a cell gave. A measurement is (trivial baseline's name or None, metric, value, count, where)."""

    parameters: int | None = None
    state_bytes: int | None = None
    protocol: str = ""
    provider: str = ""  # that ran
    measurements: Sequence[tuple[str | None, str, float, int, dict[str, Any]]] = field(default_factory=tuple)
    predictions: Sequence[dict[str, Any]] = ()  # what the numbers were scored from, JSON-ready


def key(
    cell: Cell,
    data_hash: str = "",
    code_hash: str = "",
    device_class: str = "cpu",
    machine: str = "",
    threads: int = 1,
    exam: int = 1,
) -> str:
    """A short hash of all that decides a cell's numbers; of machine and threads too where its numbers are times.

    Paths do not enter: a user's own file counts by its content, which the caller puts into `code_hash`.
    """
    decides = {
        name: getattr(cell, name)
        for name in (
            "comparison", "kind", "model", "settings", "task", "task_settings", "size", "budget", "seed", "lr",
            "dtype", "provider",
        )
    }  # fmt: skip
    decides |= {"data_hash": data_hash, "code_hash": code_hash, "device_class": device_class, "schema": SCHEMA}
    decides |= {name: value for name in ("variant", "where", "entrants", "stage") if (value := getattr(cell, name))}
    decides |= {"exam": exam} if exam > 1 else {}
    if cell.is_timed:
        decides |= {"machine": machine, "threads": threads}
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:16]


def key_of_row(row: dict[str, Any], where: dict[str, Any], device_class: str = "cpu") -> str:
    """The key that the identity columns of a row hash to, measured on a device of this class. Not for side-by-side benchmarks.

    `where` is that of the row's cell, which of all rows of a trial only the one with its loss, or its failure, tells.
    """
    cell, machine = replace(cell_of_row(row), where=where), row["versions"].get("machine", "")
    return key(cell, row["data_hash"], row["code_hash"], device_class, machine, cell.threads, exam_of(row))


def exam_of(row: dict[str, Any]) -> int:
    """The version of the evaluation that a row was measured under."""
    return row["settings"].get("exam", 1)


def cell_of_row(row: dict[str, Any]) -> Cell:
    """The cell that a row says it was measured in."""
    stage = row["settings"].get("stage", "")
    trained = "trial" if stage == "trial" else "training"
    kind = "floors" if row["family"] == FLOOR_FAMILY else trained if row["budget"] else "timing"
    shared = {name: row[name] for name in ("comparison", "task", "size", "budget", "seed", "lr", "dtype", "device")}
    return Cell(
        **shared,
        kind=kind,
        model="" if kind == "floors" else row["model"],
        settings=row["settings"]["model"],
        task_settings=row["settings"]["task"],
        provider=row["provider_requested"],
        threads=row["threads"],
        variant=row["settings"].get("variant", ""),
        stage=stage,
    )


def now() -> str:
    """The time as rows write it: UTC, ISO 8601, to the microsecond, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values, whatever the order of their keys."""
    return _CANONICAL.encode(value)


def rows(cell: Cell, identity: Identity, measured: Measured) -> list[dict[str, Any]]:
    """One row per measurement; what gave no finite number under equal settings is one failed row that names its metrics.

    Raises ValueError if nothing was measured.
    """
    if not measured.measurements:
        raise ValueError(f"Nothing was measured for {cell.describe()}; a cell gives at least one number.")
    shared = _shared(cell, identity)
    shared |= {name: getattr(measured, name) for name in ("parameters", "state_bytes", "protocol", "provider")}
    made, lost = [], {}
    for model, metric, value, count, where in measured.measurements:
        row = shared | {"model": cell.model if model is None else model, "where": dict(where)}
        if value is not None and math.isfinite(value):
            row |= {"metric": metric, "value": _plain(value), "count": int(count), "status": "ok", "reason": ""}
            made.append(_ordered(row))
            continue
        place = canonical([row["model"], row["where"]])
        if place not in lost:
            lost[place] = (len(made), [])
            made.append(row)
        lost[place][1].append(f"{metric} is {value}")
    for index, told in lost.values():
        made[index] = _ordered(made[index] | _failed("diverged: " + ", ".join(dict.fromkeys(told))))
    return made


def diverged(reason: str) -> set[str]:
    """The metrics that a failed row's reason names; none of a reason that names none, or so many that it was cut."""
    return set(re.findall(r"(?:^diverged: |, )(\w+) is (?:nan|-?inf|None)", reason)) if len(reason) < LONGEST else set()


def failure(cell: Cell, identity: Identity, reason: str, status: str = "failed") -> list[dict[str, Any]]:
    """The row of a cell that gave no number, with the reason in one sentence; of a benchmark one for each candidate."""
    if cell.entrants:
        lost = [failure(cell.of(e), identity.of(e["name"]), reason, status) for e in cell.entrants]
        return one_attempt([row for rows in lost for row in rows])
    row = _shared(cell, identity) | {"parameters": None, "state_bytes": None, "protocol": "", "provider": ""}
    return [_ordered(row | {"model": cell.model, "where": dict(cell.where)} | _failed(reason) | {"status": status})]


def one_attempt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows made one after another, as those of one attempt at a cell: with the time of the first."""
    return [row | {"when": rows[0]["when"]} for row in rows]


def _failed(reason: str) -> dict[str, Any]:
    sentence = " ".join(str(reason).split()) or "failed without a message"
    return {"metric": "", "value": None, "count": 0, "status": "failed", "reason": sentence[:LONGEST]}


def _shared(cell: Cell, identity: Identity) -> dict[str, Any]:
    floors = cell.kind == "floors"
    return {
        "schema": SCHEMA,
        "comparison": cell.comparison,
        "cell": identity.key,
        "family": FLOOR_FAMILY if floors else identity.family,
        "family_order": FLOOR_ORDER if floors else identity.family_order,
        "settings": {"model": dict(cell.settings), "task": dict(cell.task_settings)}
        | {name: value for name in ("variant", "stage") if (value := getattr(cell, name))}
        | ({"exam": identity.exam} if identity.exam > 1 else {}),
        "task": cell.task,
        "size": dict(cell.size),
        "budget": dict(cell.budget),
        "seed": cell.seed,
        "lr": cell.lr,
        "dtype": cell.dtype,
        "provider_requested": cell.provider,
        "device": cell.device,
        "threads": cell.threads,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "dirty": provenance.dirty(),
        "code_hash": identity.code_hash,
        "data_hash": identity.data_hash,
        "when": now(),
    }


def _ordered(row: dict[str, Any]) -> dict[str, Any]:
    return {column: row[column] for column in COLUMNS}


def _plain(value: float) -> int | float:
    """A Python number, also where a numpy or tensor scalar came in."""
    return value if type(value) in (int, float) else float(value)
