"""Orderings that papers state, held against the rows: same direction, opposite direction, or undecided at this scale.

"Reproduced" and "not reproduced" are said only where parameters, tokens and protocol are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from results.plans.paper import Claim
from results.report import statistics
from results.report.evaluations import Evaluation
from results.report.statistics import Difference
from results.rows import metrics

NEAR = 0.05  # how far parameters and tokens may be from the paper's, as a share
UNDECIDED = "undecided"


@dataclass(frozen=True)
class ClaimVerdict:
    """What the rows say of a claim, and on what ground."""

    claim: Claim
    verdict: str
    reason: str


def judge(claims: Sequence[Claim], evaluations: Sequence[Evaluation]) -> list[ClaimVerdict]:
    """A verdict for each claim, p corrected by Holm over all claims that can be tested."""
    found = [evidence(claim, evaluations) for claim in claims]
    tested = statistics.corrected([gap for _, gap in found if gap is not None])
    after = iter(tested)
    return [
        ClaimVerdict(claim, UNDECIDED, "not measured here") if gap is None else _verdict(claim, evaluation, next(after))
        for claim, (evaluation, gap) in zip(claims, found, strict=True)
    ]


def markdown(verdicts: Sequence[ClaimVerdict]) -> str:
    """The claims and their verdicts as a table with a note on how they are reached; "" for none."""
    if not verdicts:
        return ""
    lines = ["| claim | source | task, metric | verdict | ground |", "|---|---|---|---|---|"]
    for one in verdicts:
        claim = one.claim
        asked = ", ".join([claim.task, metrics.words(claim.metric), *(f"{k} {v}" for k, v in claim.where.items())])
        lines.append(f"| {claim.text} | {claim.source} | {asked} | {one.verdict} | {one.reason} |")
    note = (
        f"<sub>A direction is stated from {statistics.FEWEST_SEEDS} shared seeds up, where the paired t test over seeds, "
        "corrected by Holm over all claims, gives p < 0.05. Scale: parameters, tokens and protocol of the rows; "
        "reproduced and not reproduced are said only where all three are the paper's.</sub>"
    )
    return "\n".join(lines) + "\n\n" + note


def evidence(claim: Claim, evaluations: Sequence[Evaluation]) -> tuple[Evaluation | None, Difference | None]:
    """The evaluation that asks what the claim is about, and how far better lies above worse there."""
    for evaluation in evaluations:
        values = {name: evaluation.by_seed(name, claim.metric, claim.where) for name in (claim.better, claim.worse)}
        if evaluation.main and evaluation.task == claim.task and all(values.values()):
            if (gap := statistics.paired(claim.better, claim.worse, values)) is not None:
                return evaluation, gap
    return None, None


def _verdict(claim: Claim, evaluation: Evaluation, gap: Difference) -> ClaimVerdict:
    way = gap.shown * metrics.direction(claim.metric)
    verdict = {1: "same direction at this scale", -1: "opposite direction at this scale", 0: UNDECIDED}[way]
    if way and _is_the_papers(claim, evaluation):
        verdict = "reproduced" if way > 0 else "not reproduced"
    return ClaimVerdict(claim, verdict, ground(claim.metric, gap))


def ground(metric: str, gap: Difference) -> str:
    """What a direction rests on, or why none is stated: "difference 1.2 [0.3, 2.1], p 0.01, 5 seeds"."""
    scale, unit, most = (100, " points", 1.0) if metrics.is_accuracy(metric) else (1, "", math.inf)
    known = [value for value in (gap.mean, gap.low, gap.high) if value is not None]
    numbers = [f"{scale * max(-most, min(most, value)):+.3g}" for value in known]  # shares lie 1 apart at most
    interval = f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else ""
    text = f"difference {numbers[0]}{unit}{interval}"
    if gap.seeds < statistics.FEWEST_SEEDS:
        few = f"{gap.seeds} shared seed{'s' if gap.seeds > 1 else ''}"
        return f"{text}, {few}; a direction is stated from {statistics.FEWEST_SEEDS} up"
    return f"{text}, p {gap.p:.2g}, {gap.seeds} seeds" + ("" if gap.shown else "; no difference shown")


def _is_the_papers(claim: Claim, evaluation: Evaluation) -> bool:
    if claim.parameters is None or claim.tokens is None or not claim.protocol:
        return False
    budget, pair = evaluation.setup["budget"], (claim.better, claim.worse)
    tokens = budget.get("steps", 0) * budget.get("batch_tokens", 0)
    sizes = [model.parameters for model in evaluation.learners if model.label in pair]
    rows = [row for name in pair for row in evaluation.measured(name)]
    near = [abs((count or 0) / claim.parameters - 1) <= NEAR for count in sizes]
    return (
        all(near) and abs(tokens / claim.tokens - 1) <= NEAR and {row["protocol"] for row in rows} == {claim.protocol}
    )
