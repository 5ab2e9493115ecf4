"""What a row says beside its number, had again: the model's family, its parameters, its state, and who may have computed."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import tasks
from models import registry
from models.family import OTHERS
from models.matching.counts import parameter_count
from models.matching.shapes_only import shapes_only
from models.ops import providers
from results.rows import labels
from results.rows.row import FLOOR_FAMILY, FLOOR_ORDER, canonical, cell_of_row
from results.rows.verification import AnyOf
from runner.build import build, opponents
from runner.training import largest_state
from tasks.task import TRAIN_ON

Row = dict[str, Any]
SOFTMAX = "sdpa"  # what auto takes for softmax attention
ON_CPU = ("", "chunked", "native", "recurrence", SOFTMAX)
LINE = [10, 30, 40, 50, 60, 70]  # places of the families that there were before families had places
LONGEST = 4096  # tokens up to which a growing state is built again


def rebuild(rows: list[Row]) -> dict[str, Any]:
    """Columns of one model's rows in one cell with the values that they must have; what cannot be had again is left out.

    `rows` are those with numbers. Raises ValueError or LookupError where the model or the task is not known here.
    """
    row = rows[0]
    if row["family"] == FLOOR_FAMILY:
        nothing = {"family_order": FLOOR_ORDER, "parameters": None, "state_bytes": None, "provider": ""}
        return nothing | _protocol(row, cell_of_row(row).kind)
    if labels.is_contest(row["settings"]["task"]):
        return _entrant(row)
    entry = registry.entry(row["model"])
    cell = cell_of_row(row)
    facts = {
        "family": entry.family,
        "family_order": _place(row, entry.family_order),
        "provider": AnyOf(_providers(row)),
    }
    facts |= _protocol(row, cell.kind)
    if cell.kind == "timing":
        known = {"parameters": _parameters(canonical(_plan(row)), 256)}
        states = [one["value"] for one in rows if one["metric"] == "state_bytes"]
        return facts | known | ({"state_bytes": int(max(states))} if states else {})
    vocab, longest = _asked(row["task"], canonical(row["settings"]["task"]), cell.kind == "training")
    facts["parameters"] = _parameters(canonical(_plan(row)), vocab)
    if cell.kind == "trial":
        return facts | {"state_bytes": None}
    is_fixed = entry.says("fixed_state", cell.settings, False)
    if row["device"] == "cpu" and (is_fixed or longest <= LONGEST):
        facts["state_bytes"] = _state(canonical(_plan(row)), vocab, min(longest, LONGEST))
    return facts


def _place(row: Row, place: int) -> int:
    """A family's place as the row may say it: rows from before families had places say which in the line of that time it was."""
    return row["family_order"] if [place] == LINE[row["family_order"] :][:1] else place


def _entrant(row: Row) -> dict[str, Any]:
    """Of a candidate: one of ours by its registration, else other people's code, which computes itself."""
    if row["model"] in registry.names():
        entry = registry.entry(row["model"])
        known = {
            "family": entry.family,
            "family_order": _place(row, entry.family_order),
            "provider": AnyOf(_providers(row)),
        }
        return known | _protocol(row, "contest")
    if row["model"] not in opponents().OPPONENTS:
        raise LookupError(f"{row['model']} is neither a model nor an external implementation here")
    other = {"family": OTHERS.name, "family_order": _place(row, OTHERS.place), "provider": row["model"]}
    return other | _protocol(row, "contest")


def _protocol(row: Row, kind: str) -> dict[str, Any]:
    """How the numbers of a cell of some kind come about; what is no timing has one thread."""
    if kind in ("contest", "timing"):
        return {"protocol": kind}
    if row["task"] not in tasks.classes():
        return {}  # which is told where its predictions are marked again
    task, is_only_asked = tasks.classes()[row["task"]], TRAIN_ON in row["settings"]["task"]
    return {"protocol": task.untrained_protocol if is_only_asked else task.protocol, "threads": 1}


def _providers(row: Row) -> tuple[str, ...]:
    """The names that may stand in `provider`: what was asked for, and what auto may choose on the row's device."""
    asked = row["settings"]["model"].get("provider", row["provider_requested"])
    on_device = ON_CPU if row["device"] == "cpu" else (*ON_CPU, *providers.PROVIDERS)
    return tuple(dict.fromkeys((*on_device, *([asked] if asked in providers.PROVIDERS else []))))


def _plan(row: Row) -> Row:
    """What a model is built from, equal for all its cells: neither seed nor rate changes how large it is."""
    names = ("model", "family", "size", "provider_requested", "device", "threads", "dtype")
    blank = {"comparison": "", "task": "", "seed": 0, "lr": 0.0, "budget": {}}
    return {name: row[name] for name in names} | blank | {"settings": {"model": row["settings"]["model"], "task": {}}}


@lru_cache(maxsize=256)
def _parameters(plan: str, vocab: int) -> int:
    with shapes_only():
        return parameter_count(build(cell_of_row(json.loads(plan)), vocab))


@lru_cache(maxsize=256)
def _state(plan: str, vocab: int, longest: int) -> int:
    return largest_state(build(cell_of_row(json.loads(plan)), vocab).eval(), longest, "cpu")


@lru_cache(maxsize=8)
def _asked(name: str, settings: str, with_exams: bool) -> tuple[int, int]:
    """A task's vocabulary, and the tokens of the longest text of its test."""
    task = tasks.create(name, **json.loads(settings))
    longest = max((exam.batch.tokens.shape[1] for exam in task.exams("test")), default=1) if with_exams else 1
    return task.vocab, longest
