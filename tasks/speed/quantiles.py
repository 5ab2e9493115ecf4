"""Repeated figures as measurements: their median, and the 10 % and 90 % quantiles as metrics of their own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.task import Measurement


def spread(metric: str, values: Sequence[float], where: dict[str, Any]) -> Iterator[Measurement]:
    """`metric`, `metric`_quantile_10 and `metric`_quantile_90 of at least one value; `count` is how many there are."""
    ordered = sorted(values)
    yield Measurement(metric, statistics.median(ordered), len(ordered), where)
    for name, share in (("10", 0.1), ("90", 0.9)):
        yield Measurement(f"{metric}_quantile_{name}", ordered[round(share * (len(ordered) - 1))], len(ordered), where)
