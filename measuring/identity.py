"""What a cell is before it is measured: its key, its model's family, and the hashes of its code and data."""

from __future__ import annotations

import ast
import hashlib
import inspect
from functools import cache
from pathlib import Path

import torch

import tasks
from measuring.building import opponents
from models import registry
from results import provenance, record
from results.cell import Cell

ROOT = Path(__file__).resolve().parent.parent
CODE_OF_ALL = ("models/*.py", "models/kernels/*.py", "tasks/train.py", "tasks/evaluate.py", "tasks/precision.py")
NOT_IN_RESULTS = ("check*.py", "user_file.py")  # what judges or loads models, but measures nothing
OPPONENTS_FAMILY = "other_people's_code"
MEASURED_BY = {
    "floors": ("cells", "trained"),
    "trial": ("cells", "trained", "teaching", "building"),
    "training": ("cells", "trained", "teaching", "building"),
    "timing": ("cells", "timed", "building"),
    "contest": ("cells", "contested", "building"),
}


def identify(cell: Cell) -> record.Identity:
    """What a cell is before it is measured: its key, its model's family, and the hashes of its code and data."""
    if cell.kind == "contest":
        return _identify_contest(cell)
    if cell.kind == "timing":
        task_file, data_hash = ROOT / "tasks" / "throughput.py", ""
    else:
        task_file, data_hash = _task_facts(cell.task, repr(sorted(cell.task_settings.items())))
    files, family, order = {task_file}, "", 0
    if cell.model:
        entry = registry.entry(cell.model)
        files.add(entry.file)
        family, order = entry.family, entry.family_order
    if "parallel" in cell.budget:
        files.add(ROOT / "tasks" / "data_parallel.py")
    code = _code_hash(frozenset(files), cell.kind)
    key = record.key(cell, data_hash, code, _device_class(cell), provenance.machine(), cell.threads)
    return record.Identity(key, family, order, code, data_hash)


def _identify_contest(cell: Cell) -> record.Identity:
    """A contest's identity: the families of its entrants; the versions of other people's packages stand for its data."""
    files, families, versions = {ROOT / "tasks" / "contest.py"}, {}, {}
    for entrant in cell.entrants:
        if entrant["opponent"]:
            files.add(ROOT / "baselines" / "oracles" / "opponents.py")
            package = opponents().OPPONENTS[entrant["opponent"]].package
            versions[package] = opponents().comparison.version(package)
            families[entrant["name"]] = (OPPONENTS_FAMILY, len(registry.FAMILIES))
        else:
            entry = registry.entry(entrant["model"])
            files.add(entry.file)
            families[entrant["name"]] = (entry.family, entry.family_order)
    packages = hashlib.sha256(repr(sorted(versions.items(), key=str)).encode()).hexdigest()[:16] if versions else ""
    code = _code_hash(frozenset(files), cell.kind)
    key = record.key(cell, packages, code, _device_class(cell), provenance.machine(), cell.threads)
    return record.Identity(key, code_hash=code, data_hash=packages, families=families)


def _device_class(cell: Cell) -> str:
    return cell.device if cell.device == "cpu" else torch.cuda.get_device_name()


@cache
def _task_facts(name: str, settings: str) -> tuple[Path, str]:
    task = tasks.create(name, **dict(ast.literal_eval(settings)))
    return Path(inspect.getfile(type(task))), task.data_hash()


@cache
def _code_hash(files: frozenset[Path], kind: str) -> str:
    """Hash of the code that a cell's numbers depend on: its own files, what they import, and what measures its kind."""
    found = set(files)
    if kind != "floors":
        every = {path for pattern in CODE_OF_ALL for path in ROOT.glob(pattern)}
        found |= {path for path in every if not any(path.match(pattern) for pattern in NOT_IN_RESULTS)}
    measuring = {ROOT / "measuring" / f"{name}.py" for name in MEASURED_BY[kind]}
    return provenance.code_hash(provenance.named(ROOT, provenance.import_closure(ROOT, found) | measuring))
