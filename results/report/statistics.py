"""What may be said of differences: tests paired over seeds, corrected for how many pairs were compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from results.report.intervals import student

LEVEL = 0.05
FEWEST_SEEDS = 5  # below, no ordering is stated
FEWEST_BLOCKS = 20  # below, average ranks over blocks are not compared
# Nemenyi's q at 5 % for 2, 3, ... models: the studentized range over infinitely many degrees of freedom, by sqrt(2)
NEMENYI = (
    1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164, 3.219, 3.268, 3.313, 3.354, 3.391, 3.426, 3.458,
    3.489, 3.517, 3.544,
)  # fmt: skip
MOST_MODELS = len(NEMENYI) + 1


@dataclass(frozen=True)
class Difference:
    """One model's mean minus another's over the seeds that both have, with its 95 % interval and p."""

    first: str
    second: str
    mean: float
    low: float | None  # None where fewer than two seeds are shared
    high: float | None
    p: float  # two-sided, of the paired t test; 1 where fewer than two seeds are shared
    seeds: int

    @property
    def shown(self) -> int:
        """+1 or -1: the first's mean is larger or smaller, and that may be stated; 0: no difference shown."""
        if self.seeds < FEWEST_SEEDS or not self.p < LEVEL:
            return 0
        return 1 if self.mean > 0 else -1


def tail(t: float, freedom: int) -> float:
    """P(|T| >= |t|) of Student's t with a whole number of degrees of freedom, by its finite series.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if freedom < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {freedom}.")
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    square, odd = math.cos(angle) ** 2, freedom % 2
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for step in range(freedom // 2):
        total += term
        term *= square * ((2 * step + 2) / (2 * step + 3) if odd else (2 * step + 1) / (2 * step + 2))
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return min(1.0, max(0.0, 1.0 - inside))


def paired(first: str, second: str, values: Mapping[str, Mapping[int, float]]) -> Difference | None:
    """The difference of two models whose `values` are by name and seed; None if they share no seed."""
    seeds = sorted(set(values[first]) & set(values[second]))
    gaps = [values[first][seed] - values[second][seed] for seed in seeds]
    if not gaps:
        return None
    if len(gaps) < 2:
        return Difference(first, second, gaps[0], None, None, 1.0, 1)
    mean, half = student(gaps)
    return Difference(first, second, mean, mean - half, mean + half, _p(gaps), len(gaps))


def _p(gaps: Sequence[float]) -> float:
    mean, spread = fmean(gaps), stdev(gaps)
    if spread == 0:
        return 0.0 if mean else 1.0
    return tail(mean / (spread / math.sqrt(len(gaps))), len(gaps) - 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (S. Holm, 1979): each p as it stands beside all of them, in their order."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = largest
    return adjusted


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences with p after Holm's correction over all of them."""
    ps = holm([difference.p for difference in differences])
    return [replace(difference, p=p) for difference, p in zip(differences, ps, strict=True)]


def all_pairs(values: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """Every pair of models that share a seed, corrected over all pairs, in the order of `values`."""
    pairs = [paired(first, second, values) for first, second in itertools.combinations(values, 2)]
    return corrected([pair for pair in pairs if pair is not None])


def average_ranks(blocks: Sequence[Mapping[str, float]], way: int) -> dict[str, float]:
    """Each model's rank averaged over blocks, 1 the best, ties sharing theirs; `way` is +1 where more is better.

    Raises ValueError unless every block holds the same models.
    """
    names = list(blocks[0]) if blocks else []
    if any(set(block) != set(names) for block in blocks):
        raise ValueError("Average ranks need every model in every block; leave out the blocks that lack one.")
    ranks = {name: 0.0 for name in names}
    for block in blocks:
        for name in names:
            ahead = sum(way * other > way * block[name] for other in block.values())
            ties = sum(other == block[name] for other in block.values())
            ranks[name] += (ahead + (ties + 1) / 2) / len(blocks)
    return ranks


def critical_difference(models: int, blocks: int) -> float:
    """How far average ranks of two models must lie apart at 5 % (Demšar, JMLR 2006); blocks are tasks, not seeds."""
    if blocks < FEWEST_BLOCKS:
        raise ValueError(f"Average ranks are compared from {FEWEST_BLOCKS} blocks up; there are {blocks}.")
    if not 2 <= models <= MOST_MODELS:
        raise ValueError(f"Critical differences are known for 2 to {MOST_MODELS} models, not {models}.")
    return NEMENYI[models - 2] * math.sqrt(models * (models + 1) / (6 * blocks))
