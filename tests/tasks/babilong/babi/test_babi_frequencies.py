"""How often the simulator tells and answers what, against counts of the released data (v1.2, en-10k; numbers only).

A story is one draw and its facts hang together a little, so the bound is that of one chance in 10,000.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from scipy.stats import chi2_contingency

from tasks.babilong.babi.released import Story
from tests.support.babi_stories import event_of, simulated

RELEASED = {
    ("qa7", "gives"): {"John": 982, "Mary": 952, "Sandra": 938, "Daniel": 821},
    ("qa7", "receives"): {"John": 1044, "Mary": 971, "Sandra": 901, "Daniel": 777},
    ("qa7", "answer"): {"none": 5170, "one": 5356, "two": 454, "three": 20},
    ("qa10", "either"): {"one room twice": 925, "the room left": 395, "neither": 1749, "none was known": 2418},
    ("qa10", "answer"): {"yes": 4187, "no": 5190, "maybe": 1623},
}


@cache
def told(name: str) -> list[Story]:
    return simulated(name, 2000)


def either(story: Story) -> Counter[str]:
    """What stands beside the true room in each "either A or B", as far as the room that was left is known."""
    counts, last = Counter(), {}
    for fact in story.facts:
        actor, rooms = fact.split()[0], re.findall(r"the (\w+)", fact)
        left = last.pop(actor, None)
        if len(rooms) == 1:
            last[actor] = rooms[0]
        elif rooms[0] == rooms[1]:
            counts["one room twice"] += 1
        else:
            counts["none was known" if left is None else "the room left" if left in rooms else "neither"] += 1
    return counts


def counted(name: str, what: str) -> Counter[str]:
    if what == "answer":
        return Counter(item.answer for story in told(name) for item in story.items)
    if what == "either":
        return sum(map(either, told(name)), Counter())
    gifts = [event for story in told(name) for event in map(event_of, story.facts) if event.kind == "give"]
    return Counter(event.actor if what == "gives" else event.recipient for event in gifts)


@pytest.mark.parametrize(("name", "what"), RELEASED)
def test_frequencies_are_those_of_the_released_data(name: str, what: str) -> None:
    theirs, ours = RELEASED[name, what], counted(name, what)
    assert set(ours) == set(theirs)
    test = chi2_contingency([[counts[key] for key in theirs] for counts in (theirs, ours)])
    assert test.pvalue > 1e-4, (theirs, ours, test)
