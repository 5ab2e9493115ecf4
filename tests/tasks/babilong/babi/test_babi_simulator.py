"""The bAbI simulator by itself: its rules, its answers, its golden bytes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from random import Random

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.world import OPPOSITE, Event, Scene, pick
from tests.support.babi_stories import event_of, simulated

FIRST = ("qa1", "qa2", "qa3", "qa4", "qa5")


def test_stories_have_golden_bytes() -> None:
    def digest(names: tuple[str, ...]) -> str:
        stories = (list(map(tuple, TASKS[name].story(Random(seed)))) for name in names for seed in range(20))
        return hashlib.sha256("".join(map(repr, stories)).encode()).hexdigest()

    assert digest(FIRST) == "40a1b38d90a58b3209300787d72e66df5c49abb4ca70a453fdd9dc3c2adf1f59"
    assert digest(tuple(TASKS)[5:]) == "6984cd91907e05926eac93526b621a3d5713638b8097ea9ab095531a4c6b8c79"


@pytest.mark.parametrize("name", [*FIRST, "qa11", "qa12", "qa13", "qa14", "qa16"])
def test_answers_follow_from_the_supports_and_stand_in_the_labels(name: str) -> None:
    for story in simulated(name, 100):
        for item in story.items:
            assert item.answer in TASKS[name].labels
            supports = " ".join(item.facts[index] for index in item.supports)
            assert re.search(rf"\b{item.answer}\b", supports), item
            assert all(0 <= index < len(item.facts) for index in item.supports)


def test_nobody_moves_to_where_they_are_nor_takes_what_is_held() -> None:
    for name in ("qa1", "qa2", "qa3", "qa5"):
        for story in simulated(name, 100):
            room: dict[str, str] = {}
            holder: dict[str, str] = {}
            place: dict[str, str] = {}
            for event in map(event_of, story.facts):
                if event.kind == "move":
                    assert room.get(event.actor) != event.room
                    room[event.actor] = event.room
                elif event.kind == "get":
                    assert event.thing not in holder
                    here = room.get(event.actor)
                    assert None in (here, place.get(event.thing)) or place[event.thing] == here
                    holder[event.thing] = event.actor
                else:
                    assert holder.pop(event.thing) == event.actor
                    if event.kind == "give":
                        assert event.recipient != event.actor
                        there = room.get(event.recipient)
                        assert None in (there, room.get(event.actor)) or there == room[event.actor]
                        holder[event.thing] = event.recipient
                    else:
                        place[event.thing] = room.get(event.actor)


def test_where_is_object_answers_with_the_room_that_a_replay_finds() -> None:
    for story in simulated("qa2", 200):
        for item in story.items:
            thing = item.question.split()[3].rstrip("?")
            room: dict[str, str] = {}
            holder, place = None, None
            for event in map(event_of, item.facts):
                if event.kind == "move":
                    room[event.actor] = event.room
                elif event.thing == thing:
                    holder = event.actor if event.kind == "get" else None
                    place = room.get(event.actor)
            assert item.answer == (room[holder] if holder else place)


def test_where_was_object_answers_with_the_room_that_a_replay_finds() -> None:
    for story in simulated("qa3", 200):
        for item in story.items:
            thing, asked = re.match(r"Where was the (\w+) before the (\w+)\? ", item.question).groups()
            visited: list[str] = []
            holder = None
            for event in map(event_of, item.facts):
                if event.kind == "get" and event.thing == thing:
                    holder, visited = event.actor, []
                elif event.kind == "drop" and event.thing == thing:
                    holder = None
                elif event.kind == "move" and event.actor == holder:
                    visited.append(event.room)
            last = len(visited) - 1 - visited[::-1].index(asked)
            assert last > 0 and visited[last - 1] == item.answer


def test_relations_answer_with_the_only_room_that_fits() -> None:
    for story in simulated("qa4", 500):
        fits = set()
        (item,) = story.items
        for fact in item.facts:
            subject, where, other = re.match(r"The (\w+) is (\w+) of the (\w+)\.", fact).groups()
            fits |= {(subject, where, other), (other, OPPOSITE[where], subject)}
        direct = re.match(r"What is (\w+) of the (\w+)\?$", item.question)
        inverse = re.match(r"What is the (\w+) (\w+) of\?$", item.question)
        where, other = direct.groups() if direct else (OPPOSITE[inverse[2]], inverse[1])
        assert [subject for subject, *rest in fits if rest == [where, other]] == [item.answer]


def test_most_facts_only_cuts_the_story() -> None:
    for name, task in TASKS.items():
        for seed in range(50):
            whole = list(task.story(Random(seed)))
            for most in (task.fewest - 1, task.fewest, 9, 30):
                cut = list(task.story(Random(seed), most))
                assert cut == whole[: len(cut)], name
                assert all(len(item.facts) > most for item in whole[len(cut) :])


@pytest.mark.parametrize("name", sorted(TASKS))
def test_fewest_facts_and_extremes_bound_what_is_told(name: str) -> None:
    items = [item for story in simulated(name, 1000) for item in story.items]
    shortest, longest, question = TASKS[name].extremes()
    lengths = [len(fact) for item in items for fact in item.facts]
    assert min(len(item.facts) for item in items) == TASKS[name].fewest
    assert (min(lengths), max(lengths)) == (len(shortest), len(longest))
    assert max(len(item.question) for item in items) == len(question)


def test_refused_beginnings_have_no_questions_and_accepted_ones_change_nothing() -> None:
    for task in TASKS.values():
        seen: list[tuple[str, ...]] = []
        assert list(task.story(Random(3), begins=lambda facts: bool(seen.append(facts)))) == []  # noqa: B023
        whole = list(task.story(Random(3)))
        assert seen == [whole[-1].facts[: task.beginning]]
        assert list(task.story(Random(3), begins=lambda facts: True)) == whole
        assert len(whole) == task.questions or task.name in ("qa14", "qa20")


def test_gifts_are_the_first_thing_to_the_first_who_is_near() -> None:
    scene = Scene(TASKS["qa5"].world, ("give",), Random(0))
    scene.room = {"Mary": "office", "Fred": "garden", "Bill": "garden", "Jeff": "garden"}
    scene.place = {"apple": "Mary", "football": "Bill", "milk": "Fred"}
    assert scene.event() == Event("give", "Bill", "football", recipient="Fred")
    assert scene.event() == Event("give", "Fred", "football", recipient="Bill")
    scene.place["football"] = "garden"
    assert scene.event() == Event("give", "Fred", "milk", recipient="Bill")
    scene.room["Mary"] = "garden"
    assert scene.event() == Event("give", "Mary", "apple", recipient="Fred")


def test_pick_is_uniform() -> None:
    counts = Counter(pick(Random(seed), "abc") for seed in range(3000))
    assert set(counts) == set("abc") and min(counts.values()) > 900
