"""Orderings that papers state, held against the rows: same direction, opposite direction, level, or undecided at this scale.

"Reproduced" and "not reproduced" are said only where parameters, tokens and protocol are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from results.plans.method.claims import Claim
from results.plans.method.looks import Schedule
from results.report import statistics
from results.report.evaluations import Evaluation
from results.report.findings import evidence, grounds, solved
from results.report.findings.evidence import Evidence
from results.rows import metrics

NEAR = 0.05  # how far parameters and tokens may be from the paper's, as a share
SAME, OPPOSITE = "same direction at this scale", "opposite direction at this scale"
LEVEL, UNDECIDED, NOT_MEASURED = "level at this scale", "undecided", "not measured"
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"


@dataclass(frozen=True)
class ClaimVerdict:
    """What the rows say of a claim, on what ground, and beside which control."""

    claim: Claim
    verdict: str
    reason: str
    control: str = ""
    price: str = ""  # of an open claim: what would decide it
    extreme: str = ""  # that the question was too hard for both models, or too easy
    evidence: Evidence | None = field(default=None, compare=False, repr=False)

    @property
    def ground(self) -> str:
        """What the verdict rests on, and what would decide an open claim."""
        return "; ".join(filter(None, [self.reason, self.price]))

    @property
    def _as_both(self) -> str:
        """Why a level says little, where the question was too hard for both models, or too easy."""
        if not self.extreme:
            return ""
        return ", for both solve it" if self.extreme == grounds.TOO_EASY else ", and neither learned it"

    @property
    def sentence(self) -> str:
        """The verdict in a sentence about the two models."""
        claim = self.claim
        better, worse = claim.better, claim.worse
        if self.verdict in (SAME, REPRODUCED):
            return f"{better} does better than {worse}, as claimed"
        if self.verdict in (OPPOSITE, NOT_REPRODUCED):
            return f"{worse} does better than {better}, against the claim"
        if self.verdict == LEVEL:
            near = grounds.quantity(claim.metric, claim.margin)
            return f"{better} and {worse} lie less than {near} apart{self._as_both}"
        if self.verdict == NOT_MEASURED:
            return f"no rows hold {better} against {worse}"
        return f"whether {better} or {worse} does better is not decided"


def judge(
    claims: Sequence[Claim],
    evaluations: Sequence[Evaluation],
    schedule: Schedule | None = None,
    most: int | None = None,
) -> list[ClaimVerdict]:
    """A verdict for each claim; `schedule` are the plan's looks at the seeds, of which no more than `most` are taken.

    Directions are corrected by Holm over all claims that can be tested, levels over all that name a margin, shares of seeds that
    solved the task over all that have some.
    """
    found = [evidence.gather(claim, evaluations, schedule, most) for claim in claims]
    directions = _corrected([one and one.direction.p for one in found])
    levels = _corrected([one.level.p if one and one.level else None for one in found])
    counts = [one and solved.counted(claim, one.values) for claim, one in zip(claims, found, strict=True)]
    apart = _corrected([count and count.p for count in counts])
    every = list(zip(claims, found, directions, levels, counts, apart, strict=True))
    verdicts = [NOT_MEASURED if one is None else _verdict(claim, one, p, q) for claim, one, p, q, _, _ in every]
    is_open = verdicts.count(UNDECIDED)
    error = statistics.LEVEL / max(1, is_open)
    judged = []
    for (claim, one, p, q, count, r), verdict in zip(every, verdicts, strict=True):
        if one is None:
            judged.append(ClaimVerdict(claim, NOT_MEASURED, _lacking(claim, evaluations)))
            continue
        parts = [grounds.ground(claim, one, p, q, verdict != UNDECIDED, verdict == LEVEL)]
        parts += [count.told(r)] if count else []
        parts += [extreme := grounds.extreme(claim, one)]
        price = grounds.price(claim, one, error) if verdict == UNDECIDED else ""
        judged.append(
            ClaimVerdict(
                claim, verdict, "; ".join(filter(None, parts)), grounds.control(claim, one), price, extreme, one
            )
        )
    return judged


def _lacking(claim: Claim, evaluations: Sequence[Evaluation]) -> str:
    """Why there is no evidence: a model has no rows, or rows that do not tell what the claim, perhaps misspelt, asks."""
    asked = ", ".join([metrics.words(claim.metric), *(f"{key} {value}" for key, value in claim.where.items())])
    for evaluation in evaluations:
        if not evaluation.main or evaluation.task != claim.task:
            continue
        for name in (claim.better, claim.worse):
            if evaluation.measured(name) and not evaluation.by_seed(name, claim.metric, claim.where):
                return f"{name} is measured here, but none of its rows tells {asked}"
    return "not measured here"


def markdown(verdicts: Sequence[ClaimVerdict], schedule: Schedule | None = None) -> str:
    """The claims and their verdicts as a table with a note on how they are reached; "" for none."""
    if not verdicts:
        return ""
    has_control = any(one.claim.control for one in verdicts)
    heads = ["claim", "source", "task, metric", "verdict", "ground", *(["control"] if has_control else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for one in verdicts:
        claim = one.claim
        asked = ", ".join([claim.task, metrics.words(claim.metric), *(f"{k} {v}" for k, v in claim.where.items())])
        cells = [claim.text, claim.source, asked, f"{one.verdict}: {one.sentence}", one.ground]
        lines.append("| " + " | ".join([*cells, *([one.control or "none"] if has_control else [])]) + " |")
    has_timings = any(one.evidence is not None and one.evidence.evaluation.is_timing for one in verdicts)
    note = f"<sub>{grounds.note(schedule, has_timings)}{_without_control(verdicts)}</sub>"
    return "\n".join(lines) + "\n\n" + note


def _without_control(verdicts: Sequence[ClaimVerdict]) -> str:
    lacking = sum(not one.claim.control for one in verdicts)
    if not lacking:
        return ""
    return f" {lacking} of {len(verdicts)} claims {'has' if lacking == 1 else 'have'} no control."


def _corrected(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over those that there are."""
    after = iter(statistics.holm([p for p in ps if p is not None]))
    return [None if p is None else next(after) for p in ps]


def _verdict(claim: Claim, found: Evidence, direction: float, level: float | None) -> str:
    """Level where it is shown, since the plan counts a difference within its margin as none, even a sure one."""
    gap = found.differences[found.direction.look]
    if level is not None and level < statistics.LEVEL:
        if found.differences[found.level.look].seeds >= statistics.FEWEST_SEEDS:
            return LEVEL
    if gap.seeds < statistics.FEWEST_SEEDS or not direction < statistics.LEVEL or not gap.mean:
        return UNDECIDED
    way = metrics.direction(claim.metric) * (1 if gap.mean > 0 else -1)
    if _is_the_papers(claim, found.evaluation):
        return REPRODUCED if way > 0 else NOT_REPRODUCED
    return SAME if way > 0 else OPPOSITE


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
