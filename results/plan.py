"""A comparison's question: `plan.toml`, read strictly, and the cells that it asks for."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from results import contest_plan, paper_form, search, sizes
from results.cell import Cell
from results.claims import Claim, read_claim
from results.contest_plan import Contest
from results.entries import Entry, Variant, in_steps, read_budget, read_entry, read_variant
from results.paper_form import Form, Printed
from results.plan_files import FILE_NAME, comparisons, file_of
from results.table_reader import PlanError, TableReader

__all__ = ("Plan", "PlanError", "cells", "comparisons", "load")

DTYPES = ("float32", "float32+onednn", "bfloat16")
DEVICES = ("cpu", "cuda")
PARALLEL = ("ddp", "fsdp2")
KEYS = (
    "title question models seeds learning_rate learning_rates search dtype provider device workers threads timeout "
    "parallel processes snapshot_minutes size budget settings variants tasks timings contests claims printed figures"
)


@dataclass(frozen=True)
class Plan:
    """A validated comparison. `cells(plan, names)` says what it asks for."""

    comparison: str
    title: str
    question: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    learning_rate: float
    size: dict[str, int]
    budget: dict[str, int]
    settings: dict[str, dict[str, Any]]
    tasks: tuple[Entry, ...]
    timings: tuple[Entry, ...]
    contests: tuple[Contest, ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    search: search.Search | None = None  # where the learning rate is chosen by trials
    claims: tuple[Claim, ...] = ()  # orderings that papers state
    printed: tuple[Printed, ...] = ()  # tables of papers that stand beside ours
    figures: tuple[Form, ...] = ()  # in papers' own forms
    dtype: str = "float32"
    provider: str = "auto"
    device: str = "cpu"
    workers: int = 1
    threads: int = 1  # of a timed cell; a training cell always has one
    timeout: float | None = None  # seconds a cell may take; None for no limit
    parallel: str = ""  # how the processes of a training cell share each batch; "" where one process trains
    processes: int = 1
    snapshot_minutes: float = 5.0  # between two snapshots of a training in progress
    model_files: tuple[str, ...] = ()

    def with_overrides(
        self,
        *,
        models: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        size: Mapping[str, int] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        steps: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        provider: str | None = None,
        workers: int | None = None,
        parallel: str | None = None,
        processes: int | None = None,
        snapshot_minutes: float | None = None,
        model_files: Sequence[str] | None = None,
    ) -> Plan:
        """The plan with parts replaced; `tasks` filters tasks, timings and contests, `settings` may name models,
        variants and tasks. Chosen models that are no entrants of a contest join it."""
        plan = self
        if models is not None:
            plan = replace(plan, models=tuple(models), contests=tuple(c.only(models) for c in plan.contests))
        if tasks is not None:
            plan = _only_tasks(plan, tasks)
        for name, changes in (settings or {}).items():
            plan = _with_settings(plan, name, changes)
        if steps is not None:
            plan = _with_steps(plan, steps)
        simple = {
            "seeds": None if seeds is None else tuple(seeds),
            "size": None if size is None else {**self.size, **size},
            "device": device,
            "dtype": dtype,
            "contests": None if dtype is None else tuple(replace(c, dtypes=(dtype,)) for c in plan.contests),
            "provider": provider,
            "workers": workers,
            "parallel": parallel,
            "processes": processes,
            "snapshot_minutes": snapshot_minutes,
            "model_files": None if model_files is None else tuple(str(file) for file in model_files),
        }
        plan = replace(plan, **{name: value for name, value in simple.items() if value is not None})
        _check(plan, "the command line")
        return plan


def load(path: Path) -> Plan:
    """Read the plan in a file, or that of the folder `path`; raises PlanError with one sentence on anything odd."""
    path = Path(path)
    path = path if path.is_file() else file_of(path.parent if path.name == FILE_NAME else path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not valid TOML: {error}.") from None
    folder = path.resolve().parent.name
    plan = _plan(folder if path.name == FILE_NAME else f"{folder}/{path.stem}", table, TableReader(str(path)))
    _check(plan, str(path))
    return plan


def _plan(comparison: str, table: dict[str, Any], reader: TableReader) -> Plan:
    reader.refuse_unknown(table, KEYS.split(), "")
    settings = reader.take(table, "settings", dict, {})
    for name in settings:
        reader.take(settings, name, dict, where="[settings] ")
    variants = {
        name: read_variant(name, reader.take(table["variants"], name, dict), reader)
        for name in table.get("variants", {})
    }
    trains, asks = "tasks" in table, "tasks" in table or "timings" in table
    size = sizes.read(table, reader) if asks or "size" in table else {}
    budget = read_budget(table, reader) if trains or "budget" in table else {}
    grid = search.read(table, reader)
    dtype, tasks = reader.take(table, "dtype", str, "float32"), reader.take_list(table, "tasks", dict, [])
    return Plan(
        comparison=comparison,
        title=reader.take(table, "title", str),
        question=reader.take(table, "question", str),
        models=tuple(reader.take_list(table, "models", str, *([] if asks and not variants else [list(variants)]))),
        seeds=tuple(reader.take_list(table, "seeds", int, *([] if trains else [[0]]))),
        learning_rate=reader.take(table, "learning_rate", float, *([] if trains and not grid else [1e-3])),
        size=size,
        budget=in_steps(budget, {}) if budget else {},
        settings=settings,
        tasks=tuple(_with_budget(read_entry(item, "tasks", reader), budget) for item in tasks),
        timings=tuple(read_entry(item, "timings", reader) for item in reader.take_list(table, "timings", dict, [])),
        contests=tuple(
            contest_plan.read(item, size, dtype, reader) for item in reader.take_list(table, "contests", dict, [])
        ),
        variants=variants,
        search=grid,
        claims=tuple(read_claim(item, reader) for item in reader.take_list(table, "claims", dict, [])),
        printed=tuple(paper_form.read_printed(item, reader) for item in reader.take_list(table, "printed", dict, [])),
        figures=tuple(paper_form.read_form(item, reader) for item in reader.take_list(table, "figures", dict, [])),
        dtype=dtype,
        provider=reader.take(table, "provider", str, "auto"),
        device=reader.take(table, "device", str, "cpu"),
        workers=reader.take(table, "workers", int, 1),
        threads=reader.take(table, "threads", int, _processors()),
        timeout=reader.take(table, "timeout", float, None),
        parallel=reader.take(table, "parallel", str, ""),
        processes=reader.take(table, "processes", int, 1),
        snapshot_minutes=reader.take(table, "snapshot_minutes", float, Plan.snapshot_minutes),
    )


def _with_budget(entry: Entry, budget: Mapping[str, int]) -> Entry:
    return replace(entry, budget=in_steps(budget, entry.budget)) if entry.budget else entry


def cells(plan: Plan, names: Sequence[str]) -> list[Cell]:
    """Every cell that the plan asks for: trials, floors, training, timing, contests. `names` are all models there are.

    Where the rate is searched for, training cells have the rate search.UNKNOWN; `search.chosen` gives them theirs.
    """
    for name in plan.settings:
        _known(name, names, "model", f"[settings.{name}]")
    for name, variant in plan.variants.items():
        _known(variant.model, names, "model", f"[variants.{name}]")
        if name in names:
            raise PlanError(f"[variants.{name}] has the name of a model; choose another.")
    chosen = _expand(plan.models, names, plan.variants)
    floors: list[Cell] = []
    for entry in plan.tasks:
        cell = _cell(plan, entry, "floors", "", plan.seeds[0])
        floors += [] if cell in floors else [cell]
    training = [
        _cell(plan, entry, "training", model, seed)
        for entry in plan.tasks
        for seed in plan.seeds
        for model in _chosen(plan, entry, chosen, names)
    ]
    timing = [
        _cell(plan, entry, "timing", model, plan.seeds[0])
        for entry in plan.timings
        for model in _chosen(plan, entry, chosen, names)
    ]
    template = _cell(plan, Entry("", {}), "contest", "", plan.seeds[0])
    contests = [c for contest in plan.contests for c in contest_plan.cells(contest, names, plan.settings, template)]
    for model in {e["model"] for c in contests for e in c.entrants} - {""}:
        _known(model, names, "model", "[[contests]]")
    if not training and not timing and not contests:
        raise PlanError(f"Nothing is left to run in {plan.comparison!r}: no chosen model meets a chosen task.")
    trials = search.trials(plan.search, training) if plan.search else []
    return trials + floors + training + timing + contests


def _cell(plan: Plan, entry: Entry, kind: str, chosen: str, seed: int) -> Cell:
    """`chosen` is the name of a model or of a variant."""
    floors, variant = kind == "floors", plan.variants.get(chosen)
    searched = kind == "training" and plan.search is not None and entry.learning_rate is None
    rate = search.UNKNOWN if searched else entry.learning_rate or plan.learning_rate
    model, own = (variant.model, variant.settings) if variant else (chosen, {})
    # in the budget, so that tables part what was trained otherwise and never average over both
    shared = {"parallel": plan.parallel, "processes": plan.processes} if plan.parallel else {}
    return Cell(
        comparison=plan.comparison,
        kind=kind,
        model=model,
        settings={**plan.settings.get(model, {}), **own},
        task=entry.name,
        task_settings=dict(entry.settings),
        size={} if floors else dict(plan.size),
        budget={**plan.budget, **entry.budget, **shared} if kind == "training" else {},
        seed=seed,
        lr=rate if kind == "training" else 0.0,
        stage=search.CHOSEN if searched else "",
        dtype="" if floors else plan.dtype,
        provider="" if floors else plan.provider,
        device="cpu" if floors else plan.device,
        threads=plan.threads if kind in ("timing", "contest") else 1,
        model_files=() if floors else plan.model_files,
        variant=chosen if variant else "",
    )


def _expand(models: Iterable[str], names: Sequence[str], variants: Iterable[str]) -> list[str]:
    chosen: list[str] = []
    for model in models:
        for name in names if model == "all" else [_known(model, [*names, *variants], "model", "")]:
            if name not in chosen:
                chosen.append(name)
    return chosen


def _chosen(plan: Plan, entry: Entry, chosen: list[str], names: Sequence[str]) -> list[str]:
    allowed = chosen if entry.models is None else _expand(entry.models, names, plan.variants)
    return [name for name in chosen if name in allowed]


def _known(name: str, names: Sequence[str], what: str, where: str) -> str:
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names) or 'none'}."
    raise PlanError(f"There is no {what} {name!r}{f' ({where})' if where else ''}; {hint}")


def _only_tasks(plan: Plan, tasks: Sequence[str]) -> Plan:
    names = list(dict.fromkeys(entry.name for entry in (*plan.tasks, *plan.timings, *plan.contests)))
    wanted = {_known(name, names, "task", "") for name in tasks}
    kinds = ("tasks", "timings", "contests")
    keep = {kind: tuple(e for e in getattr(plan, kind) if e.name in wanted) for kind in kinds}
    return replace(plan, **keep)


def _with_settings(plan: Plan, name: str, changes: Mapping[str, Any]) -> Plan:
    if name in plan.variants:
        variant = plan.variants[name]
        changed = replace(variant, settings={**variant.settings, **changes})
        return replace(plan, variants={**plan.variants, name: changed})
    entries = {"tasks": plan.tasks, "timings": plan.timings}
    if not any(entry.name == name for entry in (*plan.tasks, *plan.timings)):
        return replace(plan, settings={**plan.settings, name: {**plan.settings.get(name, {}), **changes}})
    changed = {
        kind: tuple(replace(e, settings={**e.settings, **changes}) if e.name == name else e for e in group)
        for kind, group in entries.items()
    }
    return replace(plan, **changed)


def _with_steps(plan: Plan, steps: int) -> Plan:
    tasks = tuple(replace(entry, budget={**entry.budget, "steps": steps}) for entry in plan.tasks)
    return replace(plan, budget={**plan.budget, "steps": steps}, tasks=tasks)


def _check(plan: Plan, source: str) -> None:
    """Numbers and names that no reading of the file can check key by key."""
    budgets = [plan.budget, *(entry.budget for entry in plan.tasks)]
    rates = [
        plan.learning_rate,
        *(plan.search.rates if plan.search else ()),
        *(entry.learning_rate for entry in plan.tasks if entry.learning_rate is not None),
    ]
    width, heads = plan.size.get("width", 1), plan.size.get("heads", 1)
    unknown_sizes = sorted(set(plan.size) - set(sizes.SIZE))
    asks = bool(plan.tasks or plan.timings)
    twins = [
        f"[[{kind}]] {entry.name!r} stands twice with equal keys; remove one"
        for kind, group in (("tasks", plan.tasks), ("timings", plan.timings), ("contests", plan.contests))
        for index, entry in enumerate(group)
        if entry in group[:index]
    ]
    problems = [
        (bool(unknown_sizes), f"size has no {', '.join(unknown_sizes)}; known: width, depth, heads"),
        (any(value < 1 for value in plan.size.values()), f"size must be positive, not {plan.size}"),
        (heads >= 1 and width % heads != 0, f"width {width} must be a multiple of heads {heads}"),
        (any(v < 1 for budget in budgets for v in budget.values()), "steps and batch_tokens must be positive"),
        (any(not math.isfinite(r) or r <= 0 for r in rates), "learning_rate must be positive and finite"),
        (not plan.models and asks, "models is empty; name some, or write models = ['all']"),
        (not plan.seeds, "seeds is empty; write seeds = [0]"),
        (any(seed < 0 for seed in plan.seeds), "seeds must not be negative"),
        (len(set(plan.seeds)) != len(plan.seeds), "seeds must differ from one another"),
        (plan.dtype not in DTYPES, f"dtype {plan.dtype!r} is unknown; known: {', '.join(DTYPES)}"),
        (plan.device not in DEVICES, f"device {plan.device!r} is unknown; known: {', '.join(DEVICES)}"),
        (not plan.provider, "provider is empty; write provider = 'auto'"),
        (plan.workers < 1, "workers must be at least 1"),
        (plan.threads < 1, "threads must be at least 1"),
        (plan.parallel not in ("", *PARALLEL), f"parallel {plan.parallel!r} is unknown; known: {', '.join(PARALLEL)}"),
        (plan.processes < 1, "processes must be at least 1"),
        (plan.processes > 1 and not plan.parallel, f"processes needs parallel: {' or '.join(PARALLEL)}"),
        (
            bool(plan.parallel and (plan.timings or plan.contests)),
            "parallel is for training, timings and contests run in one process; choose tasks (--tasks) without them",
        ),
        (plan.timeout is not None and not plan.timeout > 0, "timeout must be a positive number of seconds"),
        (not plan.snapshot_minutes >= 0, "snapshot_minutes must not be negative; 0 takes one after every step"),
        (
            not asks and not plan.contests,
            "there is no [[tasks]] and no [[timings]] and no [[contests]]; add at least one",
        ),
        *((True, twin) for twin in twins),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{source}: {message}.")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
