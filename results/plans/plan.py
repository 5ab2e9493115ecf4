"""What a comparison asks, as values: the plan, what the command line changes in it, and what must hold of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from results.plans import learning_rates, sizes
from results.plans.contests import Contest
from results.plans.entries import ModelVariant, TaskEntry
from results.plans.method import looks
from results.plans.method.claims import Claim
from results.plans.method.looks import Looks, Schedule
from results.plans.paper import Form, Printed
from results.plans.toml_reader import LARGEST, PlanError
from schema import shortened, suggestion
from schema.terms import DTYPES, PARALLEL

DEVICES = ("cpu", "cuda")
MOST = 2**63 - 1  # of what is counted: no row holds more


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
    tasks: tuple[TaskEntry, ...]
    timings: tuple[TaskEntry, ...]
    contests: tuple[Contest, ...] = ()
    variants: dict[str, ModelVariant] = field(default_factory=dict)
    match: dict[str, Any] = field(default_factory=dict)  # what a match by state or FLOPs adds to each cell's size
    search: learning_rates.Search | None = None  # where the learning rate is chosen by trials
    claims: tuple[Claim, ...] = ()  # orderings that papers state
    looks: Looks | None = (
        None  # how many more seeds a claim may get that the plan's leave open, and how looks are paid for
    )
    pilot: str = ""  # the comparison whose rows chose the difficulty, on other seeds
    is_pilot: bool = False  # its report says which difficulty passes
    printed: tuple[Printed, ...] = ()  # tables of papers that stand beside ours
    figures: tuple[Form, ...] = ()  # in papers' own forms
    show: tuple[str, ...] = ()  # models that figures draw in colour, however many there are
    opens_with: str = ""  # the figure that the page shows first, by its file's name; "" for that of most claims
    dtype: str = "float32"
    provider: str = "auto"
    device: str = "cpu"
    workers: int = 1
    threads: int = field(default_factory=lambda: _processors())  # of a timed cell; a training cell always has one
    timeout: float | None = None  # seconds a cell may take; None for no limit
    compile: bool = False  # whether whole models go through torch.compile, in training cells and timings
    parallel: str = ""  # how the processes of a training cell share each batch; "" where one process trains
    processes: int = 1
    snapshot_minutes: float = 5.0  # between two snapshots of a training in progress
    model_files: tuple[str, ...] = ()

    @property
    def schedule(self) -> Schedule | None:
        """The seeds of every look at a claim; None where a claim is looked at once, with all seeds that there are."""
        return self.looks.after(self.seeds) if self.looks else None

    def with_overrides(
        self,
        *,
        models: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        steps: int | None = None,
        **changes: Any,
    ) -> Plan:
        """The plan with parts replaced; None leaves a part as it is.

        `tasks` filters tasks, timings and side-by-side benchmarks; chosen models that are no candidates of a side-by-side
        benchmark join it; `settings` may name models, variants and tasks; `steps` are those of every task. `changes` are other
        fields of the plan: `size` may name a part, `dtype` is that of side-by-side benchmarks too, and other `seeds` than the
        plan's are looked at once. Raises PlanError.
        """
        plan = self
        if models is not None:
            plan = replace(plan, models=tuple(models), contests=tuple(c.only(models) for c in plan.contests))
        if tasks is not None:
            plan = _only_tasks(plan, tasks)
        for name, own in (settings or {}).items():
            plan = _with_settings(plan, name, own)
        if steps is not None:
            plan = _with_steps(plan, steps)
        changes = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items() if v is not None}
        if "seeds" in changes:
            changes["looks"] = None
        if "size" in changes:
            changes["size"] = {**self.size, **changes["size"]}
        if "dtype" in changes:
            changes["contests"] = tuple(replace(c, dtypes=(changes["dtype"],)) for c in plan.contests)
        plan = replace(plan, **changes)
        check(plan, "the command line")
        return plan


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST_NAMED = 20  # so many names a sentence may hold


def known(name: str, names: Sequence[str], what: str, where: str) -> str:
    """The name, if it is one of `names`; else PlanError says which are near."""
    if name in names:
        return name
    near = suggestion(name, names)
    hint = near[2:-1] if near else f"known: {', '.join(names) or 'none'}."
    if what == "model" and not near and len(names) > MOST_NAMED:
        hint = f"python bench.py list shows the {len(names)} that there are."
    if what == "model" and (name.endswith(".py") or "/" in name):
        hint = (
            "a plan names a model of yours as its file registers it, and --models on the command line names the file."
        )
    raise PlanError(f"There is no {what} {shortened(name)}{f' ({where})' if where else ''}; {hint}")


def _only_tasks(plan: Plan, tasks: Sequence[str]) -> Plan:
    names = list(dict.fromkeys(entry.name for entry in (*plan.tasks, *plan.timings, *plan.contests)))
    for name in tasks:
        if name not in names:
            raise PlanError(
                f"{plan.comparison} asks no task {shortened(name)}{suggestion(name, names)}; it asks: {', '.join(names)}."
            )
    wanted = set(tasks)
    kinds = ("tasks", "timings", "contests")
    keep = {kind: tuple(e for e in getattr(plan, kind) if e.name in wanted) for kind in kinds}
    return replace(plan, **keep)


def _with_settings(plan: Plan, name: str, changes: Mapping[str, Any]) -> Plan:
    _check_measured(plan, name)
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


def _check_measured(plan: Plan, name: str) -> None:
    """PlanError for a name that the run does not measure: its setting would change nothing, and nobody would say so."""
    models = {*plan.models, *(plan.variants[chosen].model for chosen in plan.models if chosen in plan.variants)}
    for contest in plan.contests:
        models |= {*contest.models, *(entrant.model for entrant in contest.entrants if entrant.model)}
    measured = sorted(models - {"all"} | {entry.name for entry in (*plan.tasks, *plan.timings)})
    if name in measured or ("all" in models and name not in plan.variants):
        return  # "all": whether there is such a model is told where cells are made
    raise PlanError(
        f"--set names {shortened(name)}, which is no model or task of this run{suggestion(name, measured)}; "
        f"it measures: {', '.join(measured)}."
    )


def _with_steps(plan: Plan, steps: int) -> Plan:
    tasks = tuple(replace(entry, budget={**entry.budget, "steps": steps}) for entry in plan.tasks)
    return replace(plan, budget={**plan.budget, "steps": steps}, tasks=tasks)


def _unknown(key: str, word: str, known: Sequence[str]) -> str:
    return f"{key} {shortened(word)} is unknown{suggestion(word, known)}; known: {', '.join(known)}"


def check(plan: Plan, source: str) -> None:
    """Numbers and names that no reading of the file can check key by key. Raises PlanError, which names `source`."""
    for wrong, message in (
        *_of_contents(plan),
        *_of_size(plan),
        *_of_training(plan),
        *_of_seeds(plan),
        *_of_machine(plan),
    ):
        if wrong:
            raise PlanError(f"{source}: {message}.")


Rules = Iterator[tuple[bool, str]]  # whether it is broken, and the sentence that says so


def _of_contents(plan: Plan) -> Rules:
    asks = bool(plan.tasks or plan.timings)
    yield not plan.models and asks, "models is empty; name some, or write models = ['all']"
    twice = next((name for name in plan.models if plan.models.count(name) > 1), None)
    yield twice is not None, f"models names {shortened(twice)} twice; name it once"
    yield (
        not asks and not plan.contests,
        "there is no [[tasks]] and no [[timings]] and no [[contests]]; add at least one",
    )
    for kind, group in (("tasks", plan.tasks), ("timings", plan.timings), ("contests", plan.contests)):
        for index, entry in enumerate(group):
            yield entry in group[:index], f"[[{kind}]] {entry.name!r} stands twice with equal keys; remove one"
    yield (
        bool(plan.match and plan.contests),
        f"match = {plan.match.get('match')!r} is for [[tasks]] and [[timings]], side-by-side benchmarks "
        "([[contests]]) match parameters; give them a plan of their own",
    )


def _of_size(plan: Plan) -> Rules:
    width, heads = plan.size.get("width", 1), plan.size.get("heads", 1)
    strange = sorted(set(plan.size) - set(sizes.SIZE))
    yield bool(strange), f"size has no {', '.join(strange)}; known: width, depth, heads"
    yield any(value < 1 for value in plan.size.values()), f"size must be positive, not {shortened(plan.size)}"
    yield (
        heads >= 1 and width % heads != 0,
        f"width {shortened(width)} must be a multiple of heads {shortened(heads)}",
    )


def _of_training(plan: Plan) -> Rules:
    budgets = [plan.budget, *(entry.budget for entry in plan.tasks)]
    own = [entry.learning_rate for entry in plan.tasks if entry.learning_rate is not None]
    own += [rate for entry in plan.tasks for rate in entry.learning_rate_of.values()]
    rates = [plan.learning_rate, *(plan.search.rates if plan.search else ()), *own]
    yield (
        any(value < 1 for budget in budgets for value in budget.values()),
        "steps, batch_tokens and micro_batch_tokens must be positive",
    )
    yield (
        any(value > MOST for budget in budgets for value in budget.values()),
        f"steps, batch_tokens and micro_batch_tokens are at most {MOST}",
    )
    yield any(not math.isfinite(rate) or rate <= 0 for rate in rates), "learning_rate must be positive and finite"


def _of_seeds(plan: Plan) -> Rules:
    yield not plan.seeds, "seeds is empty; write seeds = [0]"
    yield any(seed < 0 for seed in plan.seeds), "seeds must not be negative"
    yield any(seed > LARGEST for seed in plan.seeds), f"a seed has 64 bits: 0 to {LARGEST}"
    yield len(set(plan.seeds)) != len(plan.seeds), "seeds must differ from one another"
    odd_looks = looks.wrong(plan.looks, plan.seeds)
    yield bool(odd_looks), odd_looks


def _of_machine(plan: Plan) -> Rules:
    yield plan.dtype not in DTYPES, _unknown("dtype", plan.dtype, DTYPES)
    yield plan.device not in DEVICES, _unknown("device", plan.device, DEVICES)
    yield not plan.provider, "provider is empty; write provider = 'auto'"
    yield plan.workers < 1, "workers must be at least 1"
    yield plan.threads < 1, "threads must be at least 1"
    yield plan.parallel not in ("", *PARALLEL), _unknown("parallel", plan.parallel, PARALLEL)
    yield plan.processes < 1, "processes must be at least 1"
    yield max(plan.workers, plan.threads, plan.processes) > MOST, f"workers, threads and processes are at most {MOST}"
    yield plan.processes > 1 and not plan.parallel, f"processes needs parallel: {' or '.join(PARALLEL)}"
    yield (
        bool(plan.parallel and (plan.timings or plan.contests)),
        "parallel is for training, timings and side-by-side benchmarks run in one process; choose tasks (--tasks) "
        "without them",
    )
    yield (
        bool(plan.compile and (plan.parallel or plan.contests)),
        "compile is for models that one process trains or times alone; take it out, or leave out parallel and side-by-side "
        "benchmarks",
    )
    yield plan.timeout is not None and not plan.timeout > 0, "timeout must be a positive number of seconds"
    yield not plan.snapshot_minutes >= 0, "snapshot_minutes must not be negative; 0 takes one after every step"
