"""The search for a shape asks few places and finds what asking all of them would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.matching.match import nearest

KINDS = {
    "even": lambda place: 7 + 3 * place,
    "square": lambda place: 5 + 2 * place + 9 * place * place,
    "cube": lambda place: place**3,
    "steep": lambda place: 2.0 ** (place / 20),
    "in steps": lambda place: 4 * (place // 7),
}


@pytest.mark.parametrize("kind", KINDS)
@given(high=st.integers(2, 400), target=st.floats(0, 1e6))
def test_the_place_found_is_where_halving_would_find_it(kind, high, target):
    count, low, end = KINDS[kind], 1, high
    while low + 1 < end:
        middle = (low + end) // 2
        low, end = (middle, end) if count(middle) <= target else (low, middle)
    assert nearest(count, target, 1, high) == min((low, end), key=lambda place: abs(count(place) - target))


def test_an_even_count_is_asked_a_handful_of_times():
    asked = []

    def count(place: int) -> int:
        asked.append(place)
        return 7 + 3 * place

    assert nearest(count, 7 + 3 * 5000, 1, 12_288) == 5000
    assert len(asked) <= 4
