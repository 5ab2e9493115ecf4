"""What several looks at growing numbers of seeds cost: error spent look by look, and p as it stands beside all of them.

K. K. G. Lan and D. L. DeMets, Biometrika 70 (1983). Levels follow from the joint normal law of the looks' statistics and are held
against each look's own p: the first is exact for the t test, later ones nearly so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from results.plans.method.looks import OBRIEN_FLEMING

EDGE = 8.0  # standard deviations beyond which nothing is
NODES = 256
LOWEST, HIGHEST = 1e-12, 0.4  # errors of one side between which a p over all looks is sought


def spent(error: float, fraction: float, spending: str) -> float:
    """How much of a one-sided `error` is spent when a `fraction` of all seeds is there.

    >>> [round(spent(0.025, f, "pocock"), 4) for f in (1 / 3, 2 / 3, 1)]
    [0.0113, 0.0191, 0.025]
    """
    if fraction >= 1:
        return error
    if spending == OBRIEN_FLEMING:
        return float(2 * special.ndtr(special.ndtri(error / 2) / math.sqrt(fraction)))
    return error * math.log(1 + (math.e - 1) * fraction)


@functools.lru_cache(maxsize=4096)
def levels(error: float, fractions: tuple[float, ...], spending: str) -> tuple[float, ...]:
    """The one-sided p that each look must not exceed, for all looks together to err with probability `error`.

    `fractions` of all seeds are those of the looks so far, ascending.
    """
    found: list[float] = []
    points, weights = (
        np.array([0.0]),
        np.array([1.0]),
    )  # of the score (root of the fraction times z) that has not crossed
    before, paid = 0.0, 0.0
    for fraction in fractions:
        step, root = math.sqrt(fraction - before), math.sqrt(fraction)
        share = spent(error, fraction, spending) - paid
        bound = _bound(points, weights, root, step, share)
        found.append(float(special.ndtr(-bound)))
        points, weights = _left(points, weights, bound * root, step, root)
        before, paid = fraction, paid + share
    return tuple(found)


def _bound(points: np.ndarray, weights: np.ndarray, root: float, step: float, share: float) -> float:
    """The z that is exceeded for the first time at this look with probability `share`."""
    from scipy.optimize import brentq  # takes most of a second to be imported, and most reports have one look

    def excess(bound: float) -> float:
        return float(weights @ special.ndtr((points - bound * root) / step)) - share

    return brentq(excess, -EDGE, EDGE) if excess(EDGE) < 0 else EDGE


def _left(
    points: np.ndarray, weights: np.ndarray, bound: float, step: float, root: float
) -> tuple[np.ndarray, np.ndarray]:
    """The law of the score after a look, where it stayed below the bound: Gauss-Legendre points and their weights."""
    nodes, sizes = _nodes()
    low = -EDGE * root
    after = low + (bound - low) * (nodes + 1) / 2
    density = np.exp(-(((after[:, None] - points) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi)) @ weights
    return after, density * sizes * (bound - low) / 2


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)


def over_looks(ps: Sequence[float], fractions: Sequence[float], spending: str) -> tuple[float, int]:
    """One-sided p of several looks together, and the look (from 0) that it comes from.

    The smallest error at which a look so far would have ended the test (Q. Liu and K. M. Anderson, 2008); it never grows with
    another look, and Holm's correction may be applied to it. The p itself where there is one look in all.
    """
    if len(fractions) == 1 and fractions[0] >= 1:
        return ps[0], 0
    found = [_error_at(p, tuple(fractions[: look + 1]), spending) for look, p in enumerate(ps)]
    best = min(range(len(found)), key=found.__getitem__)
    return found[best], best


def _error_at(p: float, fractions: tuple[float, ...], spending: str) -> float:
    """The error at which the last of these looks has the level `p`; 1 beyond the highest that is sought."""
    from scipy.optimize import brentq

    def beyond(logarithm: float) -> float:
        return levels(math.exp(logarithm), fractions, spending)[-1] - p

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if beyond(low) >= 0:
        return LOWEST if p > 0 else 0.0
    return math.exp(brentq(beyond, low, high, xtol=1e-7)) if beyond(high) > 0 else 1.0
