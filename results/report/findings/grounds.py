"""What a verdict rests on, in words: the difference, the looks that were paid for, the control, and the price of deciding."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results.plans.method.claims import Claim
from results.plans.method.looks import Schedule
from results.report import statistics
from results.report.evaluations import Evaluation
from results.report.findings import price as prices
from results.report.findings import solved
from results.report.findings.evidence import Evidence
from results.report.statistics import Difference
from results.rows import metrics
from schema.terms import tolerance

TOO_EASY = "the question is too easy for both"
ROUNDS = "Of a claim about speed read round for seed: all models are timed in turn, once a round, on this machine. "


def quantity(metric: str, value: float) -> str:
    """A difference of a metric in words, without a sign: shares in points."""
    points = 100 * value
    return f"{points:.3g} point{'' if points == 1 else 's'}" if metrics.is_accuracy(metric) else _short(value)


def _short(value: float, sign: str = "-") -> str:
    """Three figures of a number, thousands whole."""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"


def in_unit(metric: str, values: Sequence[float | None]) -> list[float | None]:
    """Differences in the unit that they are told in: points of shares, at most 100 apart; else the metric's own."""
    scale, most = (100, 1.0) if metrics.is_accuracy(metric) else (1, math.inf)
    return [None if value is None else scale * max(-most, min(most, value)) for value in values]


def difference(metric: str, gap: Difference) -> str:
    """A difference with its interval: "difference +1.2 points [+0.3, +2.1]"; shares lie 100 points apart at most."""
    unit = " points" if metrics.is_accuracy(metric) else ""
    numbers = [_short(value, "+") for value in in_unit(metric, (gap.mean, gap.low, gap.high)) if value is not None]
    interval = f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else ""
    return f"difference {numbers[0]}{unit}{interval}"


def ground(claim: Claim, found: Evidence, p: float, level: float | None, is_decided: bool, is_level: bool) -> str:
    """What a verdict rests on, or why there is none; `p` and `level` are corrected over all claims."""
    look = found.shown(is_decided, is_level)
    gap = found.differences[look]
    text = difference(claim.metric, gap)
    if gap.seeds < statistics.FEWEST_SEEDS or not found.is_reached:
        few = found.evaluation.repeats(gap.seeds, "shared ")
        if gap.seeds < statistics.FEWEST_SEEDS:
            return f"{text}, {few}; a direction is stated from {statistics.FEWEST_SEEDS} up"
        return f"{text}, {few}; the first look is at {len(found.schedule.looks[0])}"
    parts = [f"{text}, p {p:.2g}, {found.evaluation.repeats(gap.seeds)}" + _looks(found, look)]
    if level is not None:
        parts.append(f"within {quantity(claim.metric, claim.margin)}: p {level:.2g}")
    if not is_level and p >= statistics.LEVEL:
        parts.append("no difference shown")
    parts += _left_out(claim, found.evaluation)
    if found.others:
        parts.append(f"asked in {found.evaluation.title} alone, though {' and '.join(found.others)} would fit too")
    last = found.differences[-1]
    if last.seeds > gap.seeds:
        parts.append(f"over all {found.evaluation.repeats(last.seeds)} {difference(claim.metric, last)}")
    return "; ".join(parts)


def _left_out(claim: Claim, evaluation: Evaluation) -> list[str]:
    """Whose seeds take no part, because they failed or lack a part of what is asked."""
    lost = {name: evaluation.lost(name, claim.metric, claim.where) for name in (claim.better, claim.worse)}
    return [
        f"without {gone} of {seeds} seeds of {name}, which gave no number"
        for name, (gone, seeds) in lost.items()
        if gone
    ]


def extreme(claim: Claim, found: Evidence) -> str:
    """That a question was too hard for both models, or too easy, so that a difference or none says little; "" otherwise."""
    pair = (claim.better, claim.worse)
    if all(found.evaluation.learned(name, claim.metric, claim.where) == "no" for name in pair):
        return f"neither is better than {found.evaluation.counted()}"
    points = [found.evaluation.point(name, claim.metric, claim.where) for name in pair]
    if metrics.is_accuracy(claim.metric) and all(point.value >= solved.SOLVED for point in points):
        return TOO_EASY
    return ""


def _looks(found: Evidence, look: int) -> str:
    if found.schedule is None:
        return ""
    total, spent = len(found.schedule.looks), 100 * found.spent(look)
    return f", look {look + 1} of {total} ({spent:.2g} % of the {100 * statistics.LEVEL:g} % of error spent)"


def control(claim: Claim, found: Evidence) -> str:
    """The control of a claim: how far the better model lies above it, and how near its parameters are; "" for none."""
    if not claim.control:
        return ""
    counts = {model.label: model.parameters for model in found.evaluation.learners}
    ours, its = counts.get(claim.better), counts.get(claim.control)
    near = _parameters(its, ours) if ours and its else ""
    if claim.control == claim.worse:
        return f"{claim.control}, the other model of the claim{near}"
    gap = statistics.paired(claim.better, claim.control, found.values)
    told = (
        "not measured here"
        if gap is None
        else f"{difference(claim.metric, gap)}, {found.evaluation.repeats(gap.seeds)}, not corrected"
    )
    return f"{claim.control}{near}: {claim.better} against it: {told}"


def _parameters(its: int, ours: int) -> str:
    """How far a control's parameters lie from those of the model that it controls, and whether that is too far."""
    gap, near = 100 * (its / ours - 1), 100 * tolerance(ours)
    beyond = f", beyond the tolerance of {near:g} %" if abs(gap) > near else ""
    return f", parameters {gap:+.1f} %{beyond}"


def price(claim: Claim, found: Evidence, error: float) -> str:
    """How many seeds, or questions a seed, would decide an open claim at the difference and spread seen."""
    gap = found.differences[-1]
    if gap.seeds < 2:
        return f"one {found.evaluation.repeat} shows no spread, so nobody can say what would decide it"
    ways = _by_seeds(claim, gap, error, found.evaluation.repeat + "s")
    is_stated = gap.seeds >= statistics.FEWEST_SEEDS  # of fewer seeds no question would do
    if is_stated and metrics.is_accuracy(claim.metric) and gap.mean and gap.spread:
        ways.append(_by_questions(claim, found, gap, error))
    return f"to decide it at the spread seen (power {prices.POWER:g}): {', or '.join(ways)}"


def _by_seeds(claim: Claim, gap: Difference, error: float, seeds: str) -> list[str]:
    """`seeds` is what they are called: a timing has rounds."""
    most = f"more than {prices.MOST_SEEDS:,} {seeds}"
    if not gap.mean:
        ways = [f"no number of {seeds} for a difference of 0"]
    else:
        enough = prices.seeds_for_direction(gap.mean, gap.spread, error)
        ways = [f"{f'{enough} {seeds}' if enough else most} for such a difference"]
    if claim.margin is not None and abs(gap.mean) < claim.margin:
        enough = prices.seeds_for_level(gap.mean, gap.spread, claim.margin, error)
        ways.append(f"{f'{enough} {seeds}' if enough else most} for level")
    return ways


def _by_questions(claim: Claim, found: Evidence, gap: Difference, error: float) -> str:
    """The same by questions, for shares of right answers, whose chance is known."""
    points = [found.evaluation.point(name, claim.metric, claim.where) for name in (claim.better, claim.worse)]
    chance = sum(point.value * (1 - point.value) for point in points)
    now = min(point.count / point.seeds for point in points)
    if not chance or not now:
        return "no number of questions, since answers are all right or all wrong"
    enough = prices.questions_for_direction(gap.mean, gap.spread, gap.seeds, error, chance, now)
    if enough is None:
        return f"no number of questions with {gap.seeds} seeds: trainings differ too much from one another"
    return f"at least {enough:,} questions a seed with {gap.seeds} seeds (now {now:,.0f})"


def note(schedule: Schedule | None, has_timings: bool = False) -> str:
    """How verdicts are reached, and what they cost; `has_timings`: a claim rests on rounds."""
    paid = ""
    if schedule is not None:
        looks = ", ".join(str(len(seeds)) for seeds in schedule.looks)
        paid = (
            f"A claim is looked at with {looks} seeds until it is decided; {100 * statistics.LEVEL:g} % of error is spent over "
            f"these looks ({schedule.spending}, Lan and DeMets), p stands for all looks so far, and the "
            "difference that is shown is that of the look that decided, of an open claim that of all seeds. "
        )
    return (
        f"{ROUNDS if has_timings else ''}Intervals are those of one claim, not corrected. "
        f"A direction is stated from {statistics.FEWEST_SEEDS} shared seeds up, where the paired t test over seeds, "
        f"corrected by Holm over all claims, gives p < 0.05. {paid}"
        "Level is said where the plan names a margin beforehand and both one-sided t tests, corrected by Holm "
        "over all claims with a margin, show with p < 0.05 that the means lie within it. "
        "Fisher's tests, of seeds that solved the task, are corrected over claims, not for looks. "
        "Scale: parameters, tokens and protocol of the rows; "
        "reproduced and not reproduced are said only where all three are the paper's."
    )
