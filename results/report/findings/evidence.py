"""What the rows say of one claim: the difference of its two models at each look at their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from results.plans.method.claims import Claim
from results.plans.method.looks import Schedule
from results.report import statistics
from results.report.evaluations import Evaluation
from results.report.findings import spending
from results.report.statistics import Difference

Seeds = Mapping[str, Mapping[int, float]]  # a value by model and seed


@dataclass(frozen=True)
class Decision:
    """A p over all looks so far, and the look (from 0) that it comes from."""

    p: float
    look: int


@dataclass(frozen=True)
class Evidence:
    """The evaluation that asks what a claim is about, and what each look at the seeds shows there.

    `differences`: better minus worse, one a look that is complete; where the first is not, what there is. `level` is None for a
    claim without a margin.
    """

    evaluation: Evaluation
    values: Seeds
    differences: tuple[Difference, ...]
    is_reached: bool
    direction: Decision
    level: Decision | None
    schedule: Schedule | None = None
    others: tuple[str, ...] = ()  # titles of further evaluations that the claim fits too, and that are not looked at

    def shown(self, is_decided: bool, is_level: bool) -> int:
        """The look (from 0) whose difference stands beside a verdict: the one that decided; of an open claim the last."""
        if not is_decided:
            return len(self.differences) - 1
        return (self.level if is_level else self.direction).look

    def spent(self, look: int) -> float:
        """The error that is spent up to a look, of 5 %."""
        share = self.schedule.fractions[look]
        return 2 * spending.spent(statistics.LEVEL / 2, share, self.schedule.spending)


def gather(
    claim: Claim, evaluations: Sequence[Evaluation], schedule: Schedule | None = None, most: int | None = None
) -> Evidence | None:
    """The evidence on a claim, from no more than `most` looks; None where no seed of both models is measured."""
    fitting = []
    for evaluation in evaluations:
        values = {name: evaluation.by_seed(name, claim.metric, claim.where) for name in claim.models}
        if evaluation.main and evaluation.task == claim.task and values[claim.better] and values[claim.worse]:
            if statistics.paired(claim.better, claim.worse, values) is not None:
                fitting.append((evaluation, values))
    if not fitting:
        return None
    found = _weighed(claim, *fitting[0], schedule, most)
    return found and replace(found, others=tuple(evaluation.title for evaluation, _ in fitting[1:]))


def reached(claim: Claim, evaluation: Evaluation, schedule: Schedule) -> int:
    """How many looks are complete: every seed of them has rows of both models, of failures too."""
    both = set.intersection(*({row["seed"] for row in evaluation.rows[n]} for n in (claim.better, claim.worse)))
    return sum(both.issuperset(seeds) for seeds in schedule.looks)


def _weighed(
    claim: Claim, evaluation: Evaluation, values: Seeds, schedule: Schedule | None, most: int | None
) -> Evidence | None:
    if schedule is None:
        return _decided(claim, evaluation, values, [statistics.paired(claim.better, claim.worse, values)], None)
    looks = schedule.looks[: min(reached(claim, evaluation, schedule), most or len(schedule.looks))]
    kept = [{name: _of(by_seed, seeds) for name, by_seed in values.items()} for seeds in looks or schedule.looks[:1]]
    gaps = [statistics.paired(claim.better, claim.worse, one) for one in kept]
    if None in gaps:  # no seed of a whole look gave a number for both
        return None
    return _decided(claim, evaluation, kept[-1], gaps, schedule, bool(looks))


def _of(by_seed: Mapping[int, float], seeds: Sequence[int]) -> dict[int, float]:
    return {seed: value for seed, value in by_seed.items() if seed in seeds}


def _decided(
    claim: Claim,
    evaluation: Evaluation,
    values: Seeds,
    gaps: Sequence[Difference],
    schedule: Schedule | None,
    is_reached: bool = True,
) -> Evidence:
    ps = [gap.p for gap in gaps]
    near = [statistics.equivalence(gap, claim.margin) for gap in gaps] if claim.margin is not None else None
    if schedule is None:
        direction, level = Decision(ps[0], 0), near and Decision(near[0], 0)
    elif not is_reached:
        direction, level = Decision(1.0, 0), near and Decision(1.0, 0)
    else:
        few = [gap.seeds < statistics.FEWEST_SEEDS for gap in gaps]
        direction = _over(ps, few, schedule, sides=2)
        level = near and _over(near, few, schedule, sides=1)
    return Evidence(evaluation, values, tuple(gaps), is_reached, direction, level, schedule)


def _over(ps: Sequence[float], few: Sequence[bool], schedule: Schedule, sides: int) -> Decision:
    """The p over all looks; a look at too few seeds decides nothing, nor does one that is not reached."""
    known = [1.0 if lacks else p / sides for p, lacks in zip(ps, few, strict=True)]
    p, look = spending.over_looks(known, schedule.fractions, schedule.spending)
    return Decision(min(1.0, sides * p), look if p < 1 else len(ps) - 1)
