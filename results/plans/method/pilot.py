"""A comparison's pilot: a plan of its own that chose the difficulty, on seeds that the comparison does not use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from results.plans.files import file_of, folder_of
from results.plans.plan import Plan
from results.plans.toml_reader import PlanError


def check_pilot(plan: Plan, root: Path, load: Callable[[Path], Plan], source: str) -> None:
    """PlanError where the pilot that a plan names is none, or shares a seed with it; `root` is the folder of all comparisons."""
    if not plan.pilot:
        return
    if plan.is_pilot:
        raise PlanError(f"{source}: a pilot has no pilot of its own; remove pilot or is_pilot.")
    pilot = load(file_of(folder_of(root, plan.pilot)))
    if not pilot.is_pilot:
        raise PlanError(f"{source}: pilot {plan.pilot!r} is a plan without is_pilot = true; add it there.")
    shared = sorted(seeds(plan) & seeds(pilot))
    if shared:
        named = ", ".join(map(str, shared))
        raise PlanError(
            f"{source}: the pilot {plan.pilot!r} uses seeds of the comparison ({named}), those of trials and of further looks "
            "counted; give the pilot others, and measure it again."
        )


def seeds(plan: Plan) -> set[int]:
    """Every seed that a plan may use: its own, those of further looks, that of the trials of learning rates."""
    every = set(plan.seeds) | ({plan.search.seed} if plan.search else set())
    return every | (set(plan.schedule.looks[-1]) if plan.schedule else set())
