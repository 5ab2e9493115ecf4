"""A comparison's question: `plan.toml`, read strictly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from results.plans import contests, learning_rates, match, paper, sizes
from results.plans.cells import cells
from results.plans.entries import TaskEntry, in_steps, read_budget, read_entry, read_variant
from results.plans.files import FILE_NAME, comparisons, file_of, folder_of, root_of
from results.plans.method import claims, looks
from results.plans.method.names import check_names
from results.plans.method.pilot import check_pilot
from results.plans.plan import Plan, check
from results.plans.toml_reader import PlanError, TableReader
from schema import read_toml

__all__ = ("Plan", "PlanError", "cells", "comparisons", "folder_of", "load")

ONE_KEY = {
    "str": str,
    "int": int,
    "float": float,
    "float | None": float,
    "bool": bool,
}  # kinds of fields that are one key each
NOT_KEYS = {"comparison", "model_files"}  # fields that no plan.toml sets
KEYS = [field.name for field in fields(Plan) if field.name not in NOT_KEYS]
KEYS += ["learning_rates", "state_bytes", "flops_length"]  # parts of the fields `search` and `match`


def load(path: Path, names: Sequence[str] | None = None) -> Plan:
    """Read the plan in a file, or that of the folder `path`; raises PlanError with one sentence on anything odd.

    `names` are all models there are, which "all" stands for; without them claims about models of such a plan pass.
    A folder that is a link gives the comparison its own name, not its target's.
    """
    path = Path(path)
    path = path if path.is_file() else file_of(path.parent if path.name == FILE_NAME else path)
    table = read_toml(path, error=PlanError)
    folder = Path(os.path.abspath(path)).parent.name
    plan = _plan(folder if path.name == FILE_NAME else f"{folder}/{path.stem}", table, TableReader(str(path)))
    check(plan, str(path))
    check_names(plan, names, str(path))
    check_pilot(plan, root_of(Path(os.path.abspath(path)).parent), lambda file: load(file, names), str(path))
    return plan


def _plan(comparison: str, table: dict[str, Any], reader: TableReader) -> Plan:
    reader.refuse_unknown(table, KEYS, "")
    settings = reader.take(table, "settings", dict, {})
    for name in settings:
        reader.take(settings, name, dict, where="[settings] ")
    variants = reader.take(table, "variants", dict, {})
    variants = {
        name: read_variant(name, reader.take(variants, name, dict, where="[variants] "), reader) for name in variants
    }
    trains, asks = "tasks" in table, "tasks" in table or "timings" in table
    size = sizes.read(table, reader) if asks or "size" in table else {}
    budget = read_budget(table, reader) if trains or "budget" in table else {}
    grid = learning_rates.read(table, reader)
    plain = {field.name: _plain(field, table, reader) for field in fields(Plan) if _is_plain(field)}

    def each(key: str, read: Callable[[dict[str, Any]], Any]) -> tuple:
        return tuple(read(item) for item in reader.take_list(table, key, dict, []))

    return Plan(
        **plain,
        comparison=comparison,
        models=tuple(reader.take_list(table, "models", str, *([] if asks and not variants else [list(variants)]))),
        seeds=tuple(reader.take_list(table, "seeds", int, *([] if trains else [[0]]))),
        learning_rate=reader.take(table, "learning_rate", float, *([] if trains and not grid else [1e-3])),
        size=size,
        match=match.read(table, reader),
        budget=in_steps(budget, {}) if budget else {},
        settings=settings,
        tasks=each("tasks", lambda item: _with_budget(read_entry(item, "tasks", reader), budget)),
        timings=each("timings", lambda item: read_entry(item, "timings", reader)),
        contests=each("contests", lambda item: contests.read(item, size, plain["dtype"], reader)),
        variants=variants,
        search=grid,
        claims=each("claims", lambda item: claims.read_claim(item, reader)),
        looks=looks.read(table, reader),
        printed=each("printed", lambda item: paper.read_printed(item, reader)),
        figures=each("figures", lambda item: paper.read_form(item, reader)),
        show=tuple(reader.take_list(table, "show", str, [])),
    )


def _is_plain(field: Field) -> bool:
    """Whether a field is one key, whatever else the plan says."""
    return field.type in ONE_KEY and field.name in KEYS and field.name != "learning_rate"


def _plain(field: Field, table: dict[str, Any], reader: TableReader) -> Any:
    """The value of a field that is one key with a value of its type, or the field's default."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return reader.take(table, field.name, ONE_KEY[field.type], *(() if default is MISSING else (default,)))


def _with_budget(entry: TaskEntry, budget: Mapping[str, int]) -> TaskEntry:
    return replace(entry, budget=in_steps(budget, entry.budget)) if entry.budget else entry
