"""A comparison's question: `plan.toml`, read strictly, and the cells that it asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.cell import CHOSEN, UNKNOWN_RATE, Cell
from results.plans import contests as contest_plan
from results.plans import learning_rates, match, paper, sizes
from results.plans.entries import Entry, in_steps, read_budget, read_entry, read_variant
from results.plans.files import FILE_NAME, comparisons, file_of, folder_of
from results.plans.names import check_names
from results.plans.paper import read_claim
from results.plans.plan import Plan, check, known
from results.plans.toml_reader import PlanError, TableReader
from schema import read_toml

__all__ = ("Plan", "PlanError", "cells", "comparisons", "folder_of", "load")

KEYS = (
    "title question models seeds learning_rate learning_rates search dtype provider device workers threads timeout "
    "parallel processes snapshot_minutes size match state_bytes flops_length budget settings "
    "variants tasks timings contests claims printed figures"
)


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
    return plan


def _plan(comparison: str, table: dict[str, Any], reader: TableReader) -> Plan:
    reader.refuse_unknown(table, KEYS.split(), "")
    settings = reader.take(table, "settings", dict, {})
    for name in settings:
        reader.take(settings, name, dict, where="[settings] ")
    variants = reader.take(table, "variants", dict, {})
    variants = {name: read_variant(name, reader.take(variants, name, dict), reader) for name in variants}
    trains, asks = "tasks" in table, "tasks" in table or "timings" in table
    size = sizes.read(table, reader) if asks or "size" in table else {}
    budget = read_budget(table, reader) if trains or "budget" in table else {}
    grid = learning_rates.read(table, reader)
    dtype, tasks = reader.take(table, "dtype", str, "float32"), reader.take_list(table, "tasks", dict, [])
    return Plan(
        comparison=comparison,
        title=reader.take(table, "title", str),
        question=reader.take(table, "question", str),
        models=tuple(reader.take_list(table, "models", str, *([] if asks and not variants else [list(variants)]))),
        seeds=tuple(reader.take_list(table, "seeds", int, *([] if trains else [[0]]))),
        learning_rate=reader.take(table, "learning_rate", float, *([] if trains and not grid else [1e-3])),
        size=size,
        match=match.read(table, reader),
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
        printed=tuple(paper.read_printed(item, reader) for item in reader.take_list(table, "printed", dict, [])),
        figures=tuple(paper.read_form(item, reader) for item in reader.take_list(table, "figures", dict, [])),
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


def cells(
    plan: Plan, names: Sequence[str], exam_settings: learning_rates.ExamSettings = learning_rates.NONE
) -> list[Cell]:
    """Every cell that the plan asks for: trials, floors, training, timing, contests. `names` are all models there are.

    Where the rate is searched for, training cells have the rate UNKNOWN_RATE; `search.chosen` gives them theirs.
    `exam_settings` names, by model, settings that act in exams alone and are not searched for.
    """
    for name in plan.settings:
        known(name, names, "model", f"[settings.{name}]")
    for name, variant in plan.variants.items():
        known(variant.model, names, "model", f"[variants.{name}]")
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
        known(model, names, "model", "[[contests]]")
    if not training and not timing and not contests:
        raise PlanError(f"Nothing is left to run in {plan.comparison!r}: no chosen model meets a chosen task.")
    trials = learning_rates.trials(plan.search, training, exam_settings) if plan.search else []
    return trials + floors + training + timing + contests


def _cell(plan: Plan, entry: Entry, kind: str, chosen: str, seed: int) -> Cell:
    """`chosen` is the name of a model or of a variant."""
    floors, variant = kind == "floors", plan.variants.get(chosen)
    searched = kind == "training" and plan.search is not None and entry.learning_rate is None
    rate = UNKNOWN_RATE if searched else entry.learning_rate or plan.learning_rate
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
        size={} if floors else {**plan.size, **plan.match},
        budget={**plan.budget, **entry.budget, **shared} if kind == "training" else {},
        seed=seed,
        lr=rate if kind == "training" else 0.0,
        stage=CHOSEN if searched else "",
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
        for name in names if model == "all" else [known(model, [*names, *variants], "model", "")]:
            if name not in chosen:
                chosen.append(name)
    return chosen


def _chosen(plan: Plan, entry: Entry, chosen: list[str], names: Sequence[str]) -> list[str]:
    allowed = chosen if entry.models is None else _expand(entry.models, names, plan.variants)
    return [name for name in chosen if name in allowed]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
