"""What a cell is before it is measured: its key, its model's family, and the hashes of its code and data."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

import tasks
from measuring.building import opponents
from models import registry, user_file
from results import provenance, record
from results.cell import Cell
from results.identity import canonical, exam_of
from tasks.task import Task

ROOT = Path(__file__).resolve().parent.parent
CODE_OF_WEIGHTS = ("models/*.py", "models/kernels/*.py", "tasks/train.py", "tasks/precision.py")
CODE_OF_EXAMS = ("tasks/evaluate.py", "tasks/memory.py")
SHARED = ROOT / "tasks" / "data_parallel.py"  # of cells that several processes train
NOT_IN_RESULTS = ("check*.py", "user_file.py", "surroundings.py")  # what judges or loads models, but measures nothing
OPPONENTS_FAMILY = "other_people's_code"
MEASURED_BY = {
    "floors": ("cells", "trained"),
    "trial": ("cells", "trained", "learning", "teaching", "building"),
    "training": ("cells", "trained", "learning", "teaching", "building"),
    "timing": ("cells", "timed", "building"),
    "contest": ("cells", "contested", "building"),
}


def identify(cell: Cell, under: tuple[str, int] | None = None) -> record.Identity:
    """What a cell is before it is measured: its key, its model's family, and the hashes of its code and data.

    With `under`, a hash of data and an exam's version as an earlier row has them, the key under these: a forecast reads no data.
    """
    user_file.load_files(cell.model_files)
    if cell.kind == "contest":
        return _identify_contest(cell)
    if cell.kind == "timing":
        task_file, data_hash, exam = ROOT / "tasks" / "throughput.py", "", 1
    elif under is not None:
        task_file, (data_hash, exam) = Path(inspect.getfile(tasks.class_of(cell.task))), under
    else:
        task_file, data_hash, exam = _task_facts(cell.task, repr(sorted(cell.task_settings.items())))
    files, family, order = {task_file}, "", 0
    if cell.model:
        entry = registry.entry(cell.model)
        files.add(entry.file)
        family, order = entry.family, entry.family_order
    if "parallel" in cell.budget:
        files.add(SHARED)
    code = _code_hash(frozenset(files), cell.kind)
    key = record.key(cell, data_hash, code, _device_class(cell), provenance.machine(), cell.threads, exam)
    return record.Identity(key, family, order, code, data_hash, exam=exam)


def keys_among(rows: Sequence[dict[str, Any]]) -> Callable[[Cell], str]:
    """What gives the key under which `rows` hold a cell, if they do, whatever their data were; no data are read."""
    there, known = {row["cell"] for row in rows}, defaultdict(set)
    for row in rows:
        known[row["task"]].add((row["data_hash"], exam_of(row)))

    def key_of(cell: Cell) -> str:
        keys = [identify(cell, one).key for one in sorted(known.get(cell.task, {("", 1)}))]
        return next((key for key in keys if key in there), keys[0])

    return key_of


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


def contest_code(models: Iterable[str]) -> str:
    """The hash of the code that a contest of these models and opponents is held with now."""
    files = {ROOT / "tasks" / "contest.py"}
    for model in models:
        ours = model in registry.names()
        files.add(registry.entry(model).file if ours else ROOT / "baselines" / "oracles" / "opponents.py")
    return _code_hash(frozenset(files), "contest")


def _device_class(cell: Cell) -> str:
    """The device by its name; where there is none, as where a run on another machine is planned, by its kind."""
    return torch.cuda.get_device_name() if cell.device != "cpu" and torch.cuda.is_available() else cell.device


@cache
def _task_facts(name: str, settings: str) -> tuple[Path, str, int]:
    task = tasks.create(name, **dict(ast.literal_eval(settings)))
    return Path(inspect.getfile(type(task))), task.data_hash(), task.exam_version


@cache
def _code_hash(files: frozenset[Path], kind: str) -> str:
    """Hash of the code that a cell's numbers depend on: its own files, what they import, and what measures its kind."""
    shared = frozenset() if kind == "floors" else _shared_code((*CODE_OF_WEIGHTS, *CODE_OF_EXAMS))
    measuring = {ROOT / "measuring" / f"{name}.py" for name in MEASURED_BY[kind]}
    return provenance.code_hash(provenance.named(ROOT, provenance.import_closure(ROOT, files, shared) | measuring))


@cache
def _shared_code(patterns: tuple[str, ...]) -> frozenset[Path]:
    """The code that cells of every model and task share, with all that it imports."""
    return frozenset(provenance.import_closure(ROOT, _matching(patterns)))


def _matching(patterns: tuple[str, ...]) -> set[Path]:
    every = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return {path for path in every if not any(path.match(pattern) for pattern in NOT_IN_RESULTS)}


def training_key(cell: Cell, task: Task) -> str:
    """A short hash of all that a cell's trained weights depend on; what only the exam asks is left out."""
    return training_key_of(cell, type(task), task.vocab, task.data_hash())


def training_key_of(cell: Cell, task: type[Task], vocab: int, data_hash: str) -> str:
    """The same from the task's class, its vocabulary and the hash of its data."""
    names = ("model", "size", "budget", "seed", "lr", "dtype", "provider", "task")
    decides = {name: getattr(cell, name) for name in names}
    of_exams = getattr(registry.entry(cell.model).cls, "exam_settings", ())
    decides["settings"] = {name: value for name, value in cell.settings.items() if name not in of_exams}
    decides["task_settings"] = {
        name: value for name, value in cell.task_settings.items() if name not in task.exam_settings
    }
    code = code_of_training(cell.model, task, "parallel" in cell.budget)
    decides |= {"vocab": vocab, "data_hash": data_hash, "code_hash": code}
    decides["device_class"] = _device_class(cell)
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:16]


def training_code(cell: Cell, task: Task) -> str:
    """Hash of the code that a cell's trained weights depend on: the model's, the task's and the training loop's."""
    return code_of_training(cell.model, type(task), "parallel" in cell.budget)


def code_of_training(model: str, task: type[Task], is_parallel: bool) -> str:
    """The same by the model's name and the task's class."""
    shared = {SHARED} if is_parallel else set()
    return _training_code(frozenset({Path(inspect.getfile(task)), registry.entry(model).file} | shared))


@cache
def _training_code(files: frozenset[Path]) -> str:
    closure = provenance.import_closure(ROOT, files, _shared_code(CODE_OF_WEIGHTS)) - _matching(CODE_OF_EXAMS)
    measuring = {ROOT / "measuring" / "building.py", ROOT / "measuring" / "teaching.py"}
    return provenance.code_hash(provenance.named(ROOT, closure | measuring))
