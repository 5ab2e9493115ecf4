"""qa6 to qa20: a reader that knows nothing of the simulator answers its questions, and those of the released data."""

from __future__ import annotations

import pytest

from tasks.babilong.babi.released import Story
from tests.support.babi_readers import READERS, check
from tests.support.babi_stories import simulated


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_the_facts_gives_the_simulators_answers(name: str) -> None:
    check(name, simulated(name, 150))


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_the_facts_gives_the_released_answers(name: str, released: dict[str, list[Story]]) -> None:
    check(name, released[name][:1000])


@pytest.mark.parametrize("name", READERS)
def test_supports_alone_give_the_answer(name: str) -> None:
    for item in (item for story in simulated(name, 100) for item in story.items):
        facts = tuple(item.facts[index] for index in sorted(item.supports))
        check(name, [Story(list(facts), [item._replace(facts=facts)])])
