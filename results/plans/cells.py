"""The cells that a plan asks for: trials, trivial baselines, training, timing, side-by-side benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from results.cell import CHOSEN, UNKNOWN_RATE, Cell
from results.plans import contests as contest_plan
from results.plans import learning_rates
from results.plans.entries import TaskEntry
from results.plans.plan import Plan, known
from results.plans.toml_reader import PlanError


def cells(plan: Plan, names: Sequence[str], as_trained: learning_rates.Trained = learning_rates.as_it_is) -> list[Cell]:
    """Every cell that the plan asks for: trials, trivial baselines, training, timing, side-by-side benchmarks.

    `names` are all models there are.

    Where the rate is searched for, training cells have the rate UNKNOWN_RATE; `search.chosen` gives them theirs.
    `as_trained` gives a cell without what acts in its evaluation alone, for which no rate is searched.
    """
    for name in plan.settings:
        known(name, names, "model", f"[settings.{name}]")
    for name, variant in plan.variants.items():
        known(variant.model, names, "model", f"[variants.{name}]")
        if name in names:
            raise PlanError(f"[variants.{name}] has the name of a model; choose another.")
    for entry in plan.tasks:
        for name in entry.learning_rate_of:
            known(name, [*names, *plan.variants], "model", f"learning_rate_of in [[tasks]] {entry.name}")
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
        _cell(plan, entry, "timing", model, plan.seeds[0] + turn)  # models in turn, so that a slow hour is everybody's
        for entry in plan.timings
        for turn in range(entry.rounds)
        for model in _chosen(plan, entry, chosen, names)
    ]
    template = _cell(plan, TaskEntry("", {}), "contest", "", plan.seeds[0])
    contests = [c for contest in plan.contests for c in contest_plan.cells(contest, names, plan.settings, template)]
    for model in {e["model"] for c in contests for e in c.entrants} - {""}:
        known(model, names, "model", "[[contests]]")
    if not training and not timing and not contests:
        raise PlanError(f"Nothing is left to run in {plan.comparison!r}: no chosen model meets a chosen task.")
    trials = learning_rates.trials(plan.search, training, as_trained) if plan.search else []
    return trials + floors + training + timing + contests


def _cell(plan: Plan, entry: TaskEntry, kind: str, chosen: str, seed: int) -> Cell:
    """`chosen` is the name of a model or of a variant."""
    floors, variant = kind == "floors", plan.variants.get(chosen)
    own_rate = entry.rate_of(chosen)
    searched = kind == "training" and plan.search is not None and own_rate is None
    rate = UNKNOWN_RATE if searched else own_rate or plan.learning_rate
    model, own_settings = (variant.model, variant.settings) if variant else (chosen, {})
    # in the budget, so that tables part what was trained otherwise and never average over both
    shared = {"parallel": plan.parallel, "processes": plan.processes} if plan.parallel else {}
    compiled = {"compile": True} if plan.compile else {}
    return Cell(
        comparison=plan.comparison,
        kind=kind,
        model=model,
        settings={**plan.settings.get(model, {}), **own_settings},
        task=entry.name,
        task_settings={**entry.settings, **(compiled if kind == "timing" else {})},
        size={} if floors else {**plan.size, **plan.match},
        budget={**plan.budget, **entry.budget, **shared, **compiled} if kind == "training" else {},
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


def _chosen(plan: Plan, entry: TaskEntry, chosen: list[str], names: Sequence[str]) -> list[str]:
    allowed = chosen if entry.models is None else _expand(entry.models, names, plan.variants)
    return [name for name in chosen if name in allowed]
