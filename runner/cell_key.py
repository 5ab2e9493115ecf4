"""What a cell is before it is measured: its key, its model's family, and the hashes of the code and data that it uses."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import tasks
from models import registry, user_file
from models.family import OTHERS
from models.matching.match import Match, NoMatch
from models.matching.solver import solve
from models.shell.model import NO_SETTINGS, Size
from results.cell import Cell
from results.rows import provenance, store
from results.rows.row import canonical, exam_of
from runner.build import at_one_vocabulary, opponents, settings_of, terms
from runner.preflight import remembered
from schema.places import ROOT
from tasks.language_modelling.transfer import AfterText
from tasks.outline import outline
from tasks.task import Task

BYTES = 256  # the vocabulary of a timing cell
# What every model is built and trained by; what judges, lists or counts models stands in no key.
SHELL = ("models/shell/model.py", "models/language_model.py", "runner/build.py")
TRAINING = ("tasks/harness/train.py", "tasks/harness/precision.py", "runner/checkpoints/teaching.py")
PARALLEL = ("tasks/harness/data_parallel.py",)  # of cells that several processes train
COMPILED = ("models/shell/compiled.py",)
EVALUATION = (
    "tasks/harness/evaluate.py",
    "tasks/harness/peak_memory.py",
    "runner/training.py",
    "runner/checkpoints/trained_model.py",
)
TIMING = ("tasks/speed/throughput.py", "runner/timing.py")
CONTEST = ("tasks/speed/contest.py", "runner/contests.py")
OPPONENTS = ("baselines/oracles/adapters/opponents.py",)
MEASURED_BY = {  # by a cell's kind
    "floors": ("tasks/harness/floors.py",),
    "trial": (*SHELL, *TRAINING, *EVALUATION),
    "training": (*SHELL, *TRAINING, *EVALUATION),
    "timing": (*SHELL, *TIMING),
    "contest": (*SHELL, *CONTEST),
}
NEVER = (  # files that no number depends on: the solved shape, which does, stands in the hash itself
    "models/registry.py", "models/family.py", "models/user_file.py", "baselines/*/__init__.py", "models/titans/__init__.py",
    "models/matching/*.py", "models/ops/flops.py", "models/ops/*/flops.py", "runner/**/*.py", "results/**/*.py",
    "schema/__init__.py", "schema/checked.py", "schema/checkout.py", "schema/moved.py", "schema/packed.py", "schema/places.py",
    "schema/settings_check.py", "schema/surroundings.py", "schema/terms.py", "schema/whole_file.py", "schema/words.py",
)  # fmt: skip
WHOLE = "models/ops"  # an operation's folder counts whole: its forms are imported by name, at their first use


def identify(cell: Cell, under: tuple[str, int] | None = None) -> store.Identity:
    """What a cell is before it is measured: its key, its model's family, and the hashes of its code and data.

    With `under`, a hash of data and an evaluation's version as an earlier row has them, the key under these: a forecast reads no
    data.
    """
    user_file.load_files(cell.model_files)
    if cell.kind == "contest":
        return _identify_contest(cell)
    files, family, order, data_hash, exam, vocab = set(), "", 0, "", 1, BYTES
    if cell.kind != "timing":
        files |= _task_files(cell)
        if under is not None:
            (data_hash, exam), vocab = under, outline(cell.task, cell.task_settings).vocab
        else:
            data_hash, exam, vocab = _task_facts(cell.task, repr(sorted(cell.task_settings.items())))
    if cell.model:
        entry = registry.entry(cell.model)
        files |= _model_files(cell.model, cell.settings)
        family, order = entry.family, entry.family_order
    extra = _further(cell.budget | cell.task_settings)
    code = _code_hash(frozenset(files), (*MEASURED_BY[cell.kind], *extra), _shape(cell, vocab))
    key = store.key(cell, data_hash, code, _device_class(cell), provenance.machine(), cell.threads, exam)
    return store.Identity(key, family, order, code, data_hash, exam=exam)


def keys_among(rows: Sequence[dict[str, Any]]) -> Callable[[Cell], str]:
    """What gives the key under which `rows` hold a cell, if they do, whatever their data were; no data are read."""
    there, known = {row["cell"] for row in rows}, defaultdict(set)
    for row in rows:
        known[row["task"]].add((row["data_hash"], exam_of(row)))

    def key_of(cell: Cell) -> str:
        keys = [identify(cell, one).key for one in sorted(known.get(cell.task, {("", 1)}))]
        return next((key for key in keys if key in there), keys[0])

    return key_of


def _identify_contest(cell: Cell) -> store.Identity:
    """A side-by-side benchmark's identity: the families of its candidates; versions of other people's packages are its data."""
    families, versions = {}, {}
    for entrant in cell.entrants:
        if entrant["opponent"]:
            package = opponents().OPPONENTS[entrant["opponent"]].package
            versions[package] = opponents().comparison.version(package)
            families[entrant["name"]] = (OTHERS.name, OTHERS.place)
        else:
            entry = registry.entry(entrant["model"])
            families[entrant["name"]] = (entry.family, entry.family_order)
    packages = hashlib.sha256(repr(sorted(versions.items(), key=str)).encode()).hexdigest()[:16] if versions else ""
    code = contest_code([cell.of(entrant) for entrant in cell.entrants])
    key = store.key(cell, packages, code, _device_class(cell), provenance.machine(), cell.threads)
    return store.Identity(key, code_hash=code, data_hash=packages, families=families)


def contest_code(entrants: Iterable[Cell]) -> str:
    """The hash of the code that a side-by-side benchmark is held with now; of each candidate the cell that it is measured in."""
    files, shapes, extra = set(), set(), ()
    for cell in entrants:
        if cell.model in registry.names():
            files |= _model_files(cell.model, cell.settings)
            shapes.add(f"{cell.model} {_shape(cell, BYTES)}")
        else:
            extra = OPPONENTS
    return _code_hash(frozenset(files), (*MEASURED_BY["contest"], *extra), repr(sorted(shapes)))


def _device_class(cell: Cell) -> str:
    """The device by its name; where there is none, as where a run on another machine is planned, by its kind."""
    return torch.cuda.get_device_name() if cell.device != "cpu" and torch.cuda.is_available() else cell.device


@cache
def _task_facts(name: str, settings: str) -> tuple[str, int, int]:
    task = tasks.create(name, **dict(ast.literal_eval(settings)))
    return task.data_hash(), task.exam_version, task.vocab


def _shape(cell: Cell, vocab: int | None) -> str:
    """The solved shape of a cell's model in words; "" without a model, or where none can be solved, as its run will say."""
    if not cell.model or not vocab:
        return ""
    size, match = terms(cell.size, vocab)
    if match.by != "flops":
        size = at_one_vocabulary(size)  # no vocabulary has a part in other shapes, and a search takes a while
    settings = {name: value for name, value in settings_of(cell).items() if name != "provider"}  # computes the same
    find = partial(_solved, cell.model, size, [settings_of(cell), settings], match)
    try:
        return remembered.of_model("shape", cell.model, settings, (size, match), find)
    except (NoMatch, ValueError, TypeError):  # the last: a setting that the model does not know
        return ""


def _solved(model: str, size: Size, settings: Sequence[dict[str, Any]], match: Match) -> str:
    """With the first settings that can be solved: those of the cell, whose search its model shares, if its provider is here."""
    *first, last = settings
    for own in first:
        with suppress(NoMatch, ValueError, TypeError):
            return repr(solve(registry.entry(model), size, own, match))
    return repr(solve(registry.entry(model), size, last, match))


@cache
def _code_hash(own: frozenset[Path], measured_by: tuple[str, ...], shape: str = "") -> str:
    """Hash of the code that a cell's numbers depend on: its own files, what measures its kind, what they import, the shape.

    A folder among its own is a user's package, which counts with all of its files.
    """
    find = partial(_found_code_hash, own, measured_by, shape)
    if not all(map(_sources.keep, own)):
        return find()  # a user's
    names = sorted(path.relative_to(ROOT).as_posix() for path in own)
    return remembered.of_code(f"hash of code: {names} {measured_by} {shape}", find)


def _found_code_hash(own: frozenset[Path], measured_by: tuple[str, ...], shape: str) -> str:
    packages = {path for path in own if path.is_dir()}
    inside = {file for package in packages for file in user_file.files_in(package)}
    modules = (own - packages) | {file for file in inside if file.suffix == ".py"}
    named = provenance.named(ROOT, _closure(frozenset(modules), measured_by) | inside, packages)
    return provenance.code_hash(named, shape, _sources)


def _further(wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of what a budget, or a timing's settings, ask for beside one plain process."""
    return (*(PARALLEL if "parallel" in wanted else ()), *(COMPILED if wanted.get("compile") else ()))


def _model_files(model: str, settings: Mapping[str, Any]) -> set[Path]:
    """The files of a model and of the registered models that it takes its layers from, or their packages' folders."""
    return {user_file.source_of(name) for name in registry.together(model, settings)}


_sources = provenance.Sources(remembered.CODE)  # each file of the house is read once a process


def _closure(own: frozenset[Path], measured_by: tuple[str, ...]) -> set[Path]:
    """Every file that these import; of the runner's files each alone, since they know every wing."""
    named = {ROOT / name for name in measured_by}
    runner = {path for path in named if path.is_relative_to(ROOT / "runner")}
    return provenance.import_closure(ROOT, own | named - runner, _never() - own, ROOT / WHOLE, _sources) | runner


@cache  # a run asks for a closure a model and task, and the patterns search the whole tree
def _never() -> frozenset[Path]:
    return frozenset(path for pattern in NEVER for path in provenance.matching(ROOT, pattern))


def _task_files(cell: Cell) -> set[Path]:
    """The files of a cell's task, and of what is trained before it is asked, where that is another."""
    name, _ = tasks.trained(cell.task, cell.task_settings)
    classes = {tasks.class_of(cell.task), tasks.class_of(name), *([AfterText] if name != cell.task else [])}
    return {Path(inspect.getfile(cls)) for cls in classes}


def as_trained(cell: Cell) -> Cell:
    """The cell with the task and the model that its weights depend on: others than are asked where the task says `train_on`,
    and where a memory is added to the model that is trained.
    """
    name, settings = tasks.trained(cell.task, cell.task_settings)
    return replace(without_memory(cell), task=name, task_settings=settings)


def without_memory(cell: Cell) -> Cell:
    """The cell of the model that a memory is added to; of any other model the cell itself."""
    entry = registry.entry(cell.model)
    if not entry.adds_memory:
        return cell
    base, settings = entry.trained_as(cell.settings)
    return replace(cell, model=base.name, settings=settings, variant="")


def without_exam_settings(cell: Cell) -> Cell:
    """The cell without what acts in its evaluation alone, a memory or a setting; it then has no name of its own."""
    cell = without_memory(cell)
    of_exams = getattr(registry.entry(cell.model).cls, "exam_settings", ())
    kept = {name: value for name, value in cell.settings.items() if name not in of_exams}
    return cell if kept == cell.settings else replace(cell, settings=kept, variant="")


def training_key(cell: Cell, task: Task) -> str:
    """A short hash of all that a cell's trained weights depend on; what only the evaluation asks is left out."""
    return training_key_of(cell, task.training_task.vocab, task.training_task.data_hash())


def training_key_of(cell: Cell, vocab: int, data_hash: str) -> str:
    """The same from the vocabulary of what is trained and the hash of its data."""
    cell = without_exam_settings(as_trained(cell))
    task = tasks.class_of(cell.task)
    names = ("model", "settings", "size", "budget", "seed", "lr", "dtype", "provider", "task")
    decides = {name: getattr(cell, name) for name in names}
    decides["task_settings"] = {
        name: value for name, value in cell.task_settings.items() if name not in task.exam_settings
    }
    code = code_of_training(cell.model, task, cell.budget, cell.settings)
    decides |= {
        "vocab": vocab,
        "data_hash": data_hash,
        "code_hash": code,
        "shape": _shape(cell, vocab),
    }
    decides["device_class"] = _device_class(cell)
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:16]


def training_code(cell: Cell, task: Task) -> str:
    """Hash of the code that a cell's trained weights depend on: the model's, the task's and the training loop's."""
    return code_of_training(cell.model, type(task.training_task), cell.budget, cell.settings)


def code_of_training(
    model: str, task: type[Task], budget: Mapping[str, Any], settings: Mapping[str, Any] = NO_SETTINGS
) -> str:
    """The same by the model's name and settings and the task's class."""
    own = frozenset({Path(inspect.getfile(task)), *_model_files(model, settings)})
    return _code_hash(own, (*SHELL, *TRAINING, *_further(budget)))
