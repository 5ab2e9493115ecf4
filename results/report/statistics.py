"""95 % confidence intervals, and what may be said of differences: tests paired over seeds, corrected for their number."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from scipy import special

LEVEL = 0.05
NORMAL = float(special.ndtri(1 - LEVEL / 2))  # its quantile; scipy.stats, which has more, takes a second to be imported
FEWEST_SEEDS = 5  # below, no ordering is stated
FEWEST_BLOCKS = 20  # below, average ranks over blocks are not compared


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
    spread: float = 0.0  # standard deviation of the seeds' differences

    @property
    def shown(self) -> int:
        """+1 or -1: the first's mean is larger or smaller, and that may be stated; 0: no difference shown."""
        if self.seeds < FEWEST_SEEDS or not self.p < LEVEL:
            return 0
        return 1 if self.mean > 0 else -1


def wilson(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion `share` of `count` trials (E. B. Wilson, 1927); (0, 1) for no trial.

    It misses the true share in `level` of all cases. By its formula, since scipy's takes whole successes alone, and a share of
    partly right answers is none.
    """
    if count <= 0:
        return 0.0, 1.0
    share, z = min(1.0, max(0.0, share)), NORMAL if level == LEVEL else float(special.ndtri(1 - level / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def student(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half width) of the 95 % t interval of the mean of independent values, e.g. one a seed; at least two values."""
    if len(values) < 2:
        raise ValueError("An interval over seeds needs at least two seeds.")
    return fmean(values), _student_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))


def repeated(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean of as many new independent values lies in 95 of 100 repeats, if all are normal; at least two values.

    The prediction interval of a mean: its variance is that of the mean that is known plus that of the one to come.
    """
    mean, half = student(values)
    return mean - math.sqrt(2) * half, mean + math.sqrt(2) * half


@functools.cache
def _student_quantile(freedom: int) -> float:
    return float(special.stdtrit(freedom, 1 - LEVEL / 2))


def paired(first: str, second: str, values: Mapping[str, Mapping[int, float]]) -> Difference | None:
    """The difference of two models whose `values` are by name and seed; None if they share no seed."""
    seeds = sorted(set(values[first]) & set(values[second]))
    gaps = [values[first][seed] - values[second][seed] for seed in seeds]
    if not gaps:
        return None
    if len(gaps) < 2:
        return Difference(first, second, gaps[0], None, None, 1.0, 1)
    mean, half = student(gaps)
    return Difference(first, second, mean, mean - half, mean + half, _p(gaps), len(gaps), stdev(gaps))


def _p(gaps: Sequence[float]) -> float:
    mean, spread = fmean(gaps), stdev(gaps)
    if spread == 0:
        return 0.0 if mean else 1.0
    return float(2 * special.stdtr(len(gaps) - 1, -abs(mean) / (spread / math.sqrt(len(gaps)))))


def equivalence(difference: Difference, margin: float) -> float:
    """p of two means' lying less than `margin` apart: the larger of two one-sided t tests (D. J. Schuirmann, 1987)."""
    inside, seeds = margin - abs(difference.mean), difference.seeds
    if seeds < 2:
        return 1.0
    if difference.spread == 0:
        return 0.0 if inside > 0 else 1.0
    return float(special.stdtr(seeds - 1, -inside / (difference.spread / math.sqrt(seeds))))


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
    if not blocks or not blocks[0]:
        return {}
    names = list(blocks[0])
    if any(set(block) != set(names) for block in blocks):
        raise ValueError("Average ranks need every model in every block; leave out the blocks that lack one.")
    from scipy import stats

    ranks = stats.rankdata([[-way * block[name] for name in names] for block in blocks], axis=1)
    return {name: float(rank) for name, rank in zip(names, np.mean(ranks, axis=0), strict=True)}


def critical_difference(models: int, blocks: int) -> float:
    """How far average ranks of two models must lie apart at 5 % (Demšar, JMLR 2006); blocks are tasks, not seeds."""
    if blocks < FEWEST_BLOCKS:
        raise ValueError(f"Average ranks are compared from {FEWEST_BLOCKS} blocks up; there are {blocks}.")
    if models < 2:
        raise ValueError(f"Average ranks are compared between at least 2 models, not {models}.")
    from scipy import stats

    nemenyi = float(stats.studentized_range.ppf(1 - LEVEL, models, math.inf)) / math.sqrt(2)
    return nemenyi * math.sqrt(models * (models + 1) / (6 * blocks))
