"""The comparison that a command names: its folder, its plan with the command line's changes, its cells, its committed rows."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

import baselines
from models import registry, user_file
from results.cell import Cell
from results.plans import learning_rates, reader
from results.plans.method.pilot import check_pilot
from results.plans.plan import Plan
from results.report.families import ShownFamily
from results.rows import store
from runner.cell_key import identify, without_exam_settings
from runner.checkpoints import model_files
from runner.commands.shared.arguments import names_in, seeds_in, settings_in, size_in
from runner.measure import with_own_files
from schema.places import ROOT

RESULTS = ROOT / "results"


def loaded(arguments: argparse.Namespace) -> tuple[Path, Plan]:
    """The folder of the comparison that is named, and its plan."""
    folder = reader.folder_of(RESULTS, arguments.comparison)
    every = None if baselines.failures else registry.names()  # a file that fails to import refuses no claim
    return folder, reader.load(folder, every)


def changed(arguments: argparse.Namespace) -> Plan:
    """The comparison's plan with the command line's changes; the user's files that --models names are loaded."""
    _, plan = loaded(arguments)
    names = names_in(arguments.models or "")
    files = [name for name in names if user_file.is_path(name)]
    own = [name for file in files for name in user_file.load_file(file)]
    model_files.name(files)
    chosen = [name for name in names if name not in files] + own
    plan = plan.with_overrides(**changes(arguments, chosen, files))
    check_pilot(plan, RESULTS, reader.load, "the command line")
    return plan


def changes(arguments: argparse.Namespace, models: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """What `Plan.with_overrides` takes, from parsed flags; `models` are the chosen names, `files` the user's own.

    A flag that is called as a field of the plan replaces it as it is; the others are read here.
    """
    plain = {field.name for field in fields(Plan)} - {"comparison"}
    return {name: value for name, value in vars(arguments).items() if name in plain} | {
        "models": list(models) or None,
        "tasks": names_in(arguments.tasks or "") or None,
        "seeds": seeds_in(arguments.seeds) if arguments.seeds else None,
        "size": size_in(arguments.size) if arguments.size else None,
        "settings": settings_in(arguments.set),
        "steps": arguments.steps,
        "model_files": [str(Path(file).expanduser().resolve()) for file in files],
    }


def key_of(cell: Cell) -> str:
    """The key under which a cell's rows stand."""
    return identify(cell).key


def cells(plan: Plan, rows: Sequence[dict[str, Any]], key: Callable[[Cell], str] = key_of) -> list[Cell]:
    """The plan's cells, as far as `rows` tell: trials at rates that the grid grew by, each training at the rate that its trials
    chose, and trainings at the further seeds that open claims ask for.
    """
    found = with_own_files(reader.cells(plan, registry.names(), without_exam_settings))
    if plan.search is not None:
        compared = [(claim.task, claim.models) for claim in plan.claims]
        found = learning_rates.chosen(plan.search, found, rows, key, without_exam_settings, compared)
    if plan.looks is None:
        return found
    from runner.schedule import further_seeds  # judges claims, which takes scipy; a forecast without looks does not

    return found + further_seeds.cells(plan, found, rows, key)


def committed_rows(
    folder: Path, console: Console, read: Callable[[Path], list[dict[str, Any]]] = store.read
) -> list[dict[str, Any]]:
    """The committed rows of a comparison's folder; none, and a sentence on it, where they cannot be read."""
    try:
        return read(folder / "reference" / "rows.jsonl")
    except store.RecordError as error:
        console.print(f"Going on without the committed rows: {error}", style="yellow", markup=False, soft_wrap=True)
        return []


def families() -> list[ShownFamily]:
    """The families of the models here, as a report shows them."""
    return [ShownFamily(one.name, one.title, one.place, one.hue, one.marker, one.looks) for one in registry.families()]


def shown(path: Path) -> str:
    """A path as it is told: from where the user stands."""
    return os.path.relpath(path)
