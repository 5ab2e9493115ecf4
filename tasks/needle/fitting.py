"""How much fits: the search for the largest haystack."""

from __future__ import annotations

from collections.abc import Callable


def largest(fits: Callable[[int], bool], least: int = 1, near: int | None = None) -> int:
    """The largest count that fits, at least `least`, which is taken to fit.

    Counts are doubled until one does not fit, and then halved in between; with a guess `near`, where a question is
    dear, ever larger steps are taken away from it first.
    """
    low, high = (least, max(2, 2 * least)) if near is None else _around(fits, least, near)
    while near is None and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _around(fits: Callable[[int], bool], least: int, near: int) -> tuple[int, int]:
    """A count that fits and a larger one that does not."""
    place, step = max(least, near), max(1, near // 64)
    if place == least or fits(place):
        while fits(place + step):
            place, step = place + step, 2 * step
        return place, place + step
    while place - step > least and not fits(place - step):
        place, step = place - step, 2 * step
    return max(least, place - step), place
