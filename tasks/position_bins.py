"""Places of a text in bins that double, so that what is measured by position has few numbers at any length."""

from __future__ import annotations

from collections.abc import Iterator

FIRST = 8  # the places before this one are one bin


def doubling(length: int) -> Iterator[tuple[int, int]]:
    """First place and end of each bin that a text of `length` places reaches into: 0 to 8, 8 to 16, 16 to 32, ..."""
    start, end = 0, FIRST
    while start < length:
        yield start, end
        start, end = end, 2 * end
