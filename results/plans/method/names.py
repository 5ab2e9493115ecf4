"""Whether the names in a plan's claims, figures and `show` are names of what it measures."""

from __future__ import annotations

from collections.abc import Sequence

from results.plans.plan import Plan
from results.plans.toml_reader import PlanError
from schema import shortened, suggestion


def check_names(plan: Plan, names: Sequence[str] | None, source: str) -> None:
    """PlanError where a claim, a figure or `show` names a model or a task that the plan, as its file has it, never measures.

    `names` are all models there are; without them, any name passes where the plan asks "all". Only for a plan as its file
    has it: a part of one, chosen on the command line, keeps the claims about the rest.
    """
    tasks = [entry.name for entry in (*plan.tasks, *plan.timings, *plan.contests)]
    models = [*plan.models, *(model for contest in plan.contests for model in contest.models), *plan.variants]
    models += [entrant.name for contest in plan.contests for entrant in contest.entrants]
    for claim in plan.claims:
        where = f"{source}: [[claims]] {shortened(claim.text)}"
        _check(claim.better, models, names, "model", f"{where}: better")
        _check(claim.worse, models, names, "model", f"{where}: worse")
        if claim.control:
            _check(claim.control, models, names, "model", f"{where}: control")
        _check(claim.task, tasks, (), "task", f"{where}: task")
    for name in plan.show:
        _check(name, models, names, "model", f"{source}: show")
    for form in plan.figures:
        where = f"{source}: [[figures]] {shortened(form.name)}"
        _check(form.task, tasks, (), "task", f"{where}: task")
        for label in (*form.models, *form.same.values()):
            _check(label, models, names, "model", f"{where}: models and same")


def _check(word: str, known: Sequence[str], every: Sequence[str] | None, what: str, where: str) -> None:
    if "all" in known and every is None:
        return
    known = [*dict.fromkeys([*(name for name in known if name != "all"), *((every or ()) if "all" in known else ())])]
    if word not in known:
        raise PlanError(
            f"{where}: {shortened(word)} is no {what} of this plan{suggestion(word, known)}; it has: {', '.join(known)}."
        )
