"""The share of seeds that solved a task, where learning is bimodal: some seeds of a model know it, others do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from results.plans.method.claims import Claim
from results.report.findings.evidence import Seeds
from results.rows import metrics

SOLVED = 0.95  # a seed with this share of right answers has solved the task
MISSED = 0.75  # and one below this has not, nor nearly


@dataclass(frozen=True)
class Count:
    """How many seeds of two models solved the task, of how many, and p of Fisher's exact test."""

    solved: tuple[int, int]
    seeds: tuple[int, int]
    p: float

    def told(self, p: float) -> str:
        """The counts in words, with p as it stands beside the other claims' tests."""
        (one, other), (first, second) = self.solved, self.seeds
        return f"solved by {one} of {first} seeds against {other} of {second} (Fisher's exact test: p {p:.2g})"


def is_bimodal(values: Iterable[float]) -> bool:
    """Whether some of a model's seeds solved the task and others came nowhere near."""
    values = list(values)
    return any(value >= SOLVED for value in values) and any(value < MISSED for value in values)


def share(metric: str, values: Iterable[float]) -> str:
    """ "3 of 5 seeds solved it" where learning is bimodal, else ""."""
    values = list(values)
    if not metrics.is_accuracy(metric) or not is_bimodal(values):
        return ""
    return f"{sum(value >= SOLVED for value in values)} of {len(values)} seeds solved it"


def counted(claim: Claim, values: Seeds) -> Count | None:
    """The seeds of a claim's two models that solved the task; None where neither learns bimodally."""
    pair = [list(values[name].values()) for name in (claim.better, claim.worse)]
    if not metrics.is_accuracy(claim.metric) or metrics.direction(claim.metric) < 0 or not any(map(is_bimodal, pair)):
        return None
    from scipy import stats  # takes a second to be imported

    good = tuple(sum(value >= SOLVED for value in one) for one in pair)
    seeds = tuple(map(len, pair))
    table = [[count, total - count] for count, total in zip(good, seeds, strict=True)]
    return Count(good, seeds, float(stats.fisher_exact(table)[1]))
