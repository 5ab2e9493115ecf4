"""95 % intervals of a proportion and of a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

NORMAL = 1.959963984540054
# two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom
STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
    2.0452, 2.0423,
)  # fmt: skip


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion `share` of `count` trials (E. B. Wilson, 1927); (0, 1) for no trial."""
    if count <= 0:
        return 0.0, 1.0
    share = min(1.0, max(0.0, share))
    square = NORMAL**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def student(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half width) of the t interval of the mean of independent values, e.g. one a seed; at least two values."""
    if len(values) < 2:
        raise ValueError("An interval over seeds needs at least two seeds.")
    freedom = len(values) - 1
    quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL
    return fmean(values), quantile * stdev(values) / math.sqrt(len(values))
