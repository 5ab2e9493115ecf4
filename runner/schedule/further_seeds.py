"""The trainings at further seeds that open claims ask for, look after look, as far as the rows that are there tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from results.cell import Cell
from results.plans.plan import Plan
from results.report.evaluations import grouped
from results.report.findings.claims import UNDECIDED, ClaimVerdict, judge

Row = dict[str, Any]


def cells(plan: Plan, found: Sequence[Cell], rows: Sequence[Row], key: Callable[[Cell], str]) -> list[Cell]:
    """Training cells like those `found`, at the seeds of every look that a claim was left open for; none without looks.

    Each look is taken as it was when it was complete: later rows change nothing of what it asked for.
    """
    schedule = plan.schedule
    if schedule is None or not plan.claims or not rows:
        return []
    base = [cell for cell in found if cell.kind == "training"]
    keys, further = {key(cell) for cell in base}, []
    for look in range(1, len(schedule.looks)):
        there = grouped(row for row in rows if row["cell"] in keys)
        open_claims = [one for one in judge(plan.claims, there, schedule, look) if _is_open(one, look)]
        seeds = schedule.looks[look][len(schedule.looks[look - 1]) :]
        asked = _at(seeds, base, open_claims)
        if not asked:
            break
        further += asked
        keys |= {key(cell) for cell in asked}
    return further


def _is_open(verdict: ClaimVerdict, look: int) -> bool:
    """Whether a claim has been looked at so many times and is undecided."""
    found = verdict.evidence
    return verdict.verdict == UNDECIDED and found is not None and found.is_reached and len(found.differences) == look


def _at(seeds: Iterable[int], base: Sequence[Cell], verdicts: Sequence[ClaimVerdict]) -> list[Cell]:
    """The trainings of the models that these claims name, on the task that each is about, at these seeds; each once."""
    wanted = [cell for cell in base if cell.seed == base[0].seed and any(_is_about(one, cell) for one in verdicts)]
    return [replace(cell, seed=seed) for seed in seeds for cell in wanted]


def _is_about(verdict: ClaimVerdict, cell: Cell) -> bool:
    asked = verdict.evidence.evaluation
    same = (cell.task, cell.task_settings, cell.budget) == (asked.task, asked.settings, asked.setup["budget"])
    return same and (cell.variant or cell.model) in verdict.claim.models
