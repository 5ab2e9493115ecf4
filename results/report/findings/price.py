"""What it would take to decide an open claim at the difference and the spread seen: seeds, or questions a seed."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from results.report import statistics

POWER = 0.8
MOST_SEEDS = 1000  # beyond, the number is not told


def seeds_for_direction(mean: float, spread: float, error: float) -> int | None:
    """Seeds at which the paired t test shows such a difference with power 0.8; None beyond 1,000."""
    if spread == 0:
        return statistics.FEWEST_SEEDS if mean else None
    return _fewest(lambda seeds: power_of_direction(abs(mean) / spread, seeds, error))


def seeds_for_level(mean: float, spread: float, margin: float, error: float) -> int | None:
    """Seeds at which both one-sided tests show that two means lie within the margin, with power 0.8; None beyond 1,000."""
    if abs(mean) >= margin:
        return None
    if spread == 0:
        return statistics.FEWEST_SEEDS

    def power(seeds: int) -> float:
        one, other = (_beyond((margin - way * mean) / spread, seeds, error) for way in (1, -1))
        return one + other - 1

    return _fewest(power)


def questions_for_direction(
    mean: float, spread: float, seeds: int, error: float, sampling: float, questions: float
) -> int | None:
    """Questions a seed at which these seeds show the difference with power 0.8; None where no number is enough.

    `sampling` is the variance of one question's difference. All of it is taken for chance, so that fewer never do: what the
    questions have in common for both models makes the true share smaller.
    """
    by_chance = sampling / questions
    excess = spread**2 - (abs(mean) / _effect(seeds, error)) ** 2  # of variance, over what these seeds can bear
    if excess <= 0:
        return math.ceil(questions)
    return math.ceil(questions * by_chance / (by_chance - excess)) if excess < by_chance else None


def power_of_direction(effect: float, seeds: int, error: float) -> float:
    """Probability that the two-sided paired t test shows a mean of `effect` standard deviations, on its own side."""
    return _beyond(effect, seeds, error / 2)


def _beyond(effect: float, seeds: int, error: float) -> float:
    """Probability that a t with this effect lies beyond the one-sided quantile."""
    shift, bound = effect * math.sqrt(seeds), -float(special.stdtrit(seeds - 1, error))
    below = float(special.nctdtr(seeds - 1, shift, bound))
    return 1 - below if math.isfinite(below) else float(special.ndtr(shift - bound))


def _fewest(power: Callable[[int], float]) -> int | None:
    low, high = statistics.FEWEST_SEEDS, MOST_SEEDS
    if power(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return low


def _effect(seeds: int, error: float) -> float:
    """The difference in standard deviations that so many seeds show with power 0.8."""
    from scipy.optimize import brentq

    return brentq(lambda effect: power_of_direction(effect, seeds, error) - POWER, 1e-6, 1e3)
