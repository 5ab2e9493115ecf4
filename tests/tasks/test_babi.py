"""The bAbI simulator: its own rules, its golden bytes, and the statistics of the released data where that is present.

The released data (v1.2, `en-10k`, CC BY 3.0) is no part of the project: TITANOMACHY_BABI names it, or it lies in a
folder `shared/data` beside the project.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tasks.babi import TASKS
from tasks.babi_files import Story, parse
from tasks.babi_story import EventTask
from tasks.babi_world import OPPOSITE, Chronicle, Event, Scene, pick
from tasks.babilong_scoring import last_mentioned, last_touchers_room, matches

ARCHIVE = "babi-v1.2-en-10k.tar.xz"
STORIES = 2000
FIRST = ("qa1", "qa2", "qa3", "qa4", "qa5")


NAMES = re.compile(
    r"\b(?:Daniel|John|Mary|Sandra|Bill|Fred|Jeff|Julie|Lily|Bernhard|Brian|Julius|Greg|Gertrude|Winona|Emily|Jessica|"
    r"gertrude|winona|emily|jessica|Sumit|Yann|Jason|Antoine|sumit|yann|jason|antoine|apple|football|milk|north|south|"
    r"east|west|\w+room|garden|hallway|kitchen|office|cinema|park|school|"
    r"triangle|(?:pink|blue|red|yellow) \w+|box of chocolates|box|chest|chocolate|container|suitcase|"
    r"mouse|wolf|sheep|cat|frog|lion|rhino|swan|[Mm]ice|[Ww]olves|Sheep|[Cc]ats)\b"
)
RELATION = re.compile(r"The \w+ is (?:north|south|east|west) of the \w+\.")


def simulated(name: str, stories: int = STORIES) -> list[Story]:
    told = [list(TASKS[name].story(Random(1000 + index))) for index in range(stories)]
    return [Story(list(items[-1].facts), items) for items in told]


def event_of(fact: str) -> Event:
    """The event that a sentence tells; the inverse of `EventTask.sentence`."""
    words = fact.rstrip(".").removesuffix(" there").split()
    verb = words[1]
    if verb in ("passed", "gave", "handed"):
        return Event("give", words[0], thing=words[3], recipient=words[5])
    if verb in ("got", "took", "grabbed", "picked"):
        return Event("get", words[0], thing=words[-1])
    if verb in ("left", "dropped", "discarded", "put"):
        return Event("drop", words[0], thing=words[-1])
    assert verb in ("went", "journeyed", "travelled", "moved"), fact
    return Event("move", words[0], room=words[-1])


# The simulator by itself


def test_stories_have_golden_bytes() -> None:
    def digest(names: tuple[str, ...]) -> str:
        stories = (list(map(tuple, TASKS[name].story(Random(seed)))) for name in names for seed in range(20))
        return hashlib.sha256("".join(map(repr, stories)).encode()).hexdigest()

    assert digest(FIRST) == "40a1b38d90a58b3209300787d72e66df5c49abb4ca70a453fdd9dc3c2adf1f59"
    assert digest(tuple(TASKS)[5:]) == "6fc19be0b20c8b22f22751b1b92352b4ccca51718b61d1bf75cd3f7101c6df7f"


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


# Against the released data


def archive() -> Path | None:
    beside = Path(__file__).parents[2].parent / "shared" / "data" / ARCHIVE
    path = Path(os.environ.get("TITANOMACHY_BABI", beside))
    return path if path.is_file() else None


@pytest.fixture(scope="module")
def released() -> dict[str, list[Story]]:
    """All stories of a task, those of the test file under the name with " test"."""
    path = archive()
    if path is None:
        pytest.skip(f"the released bAbI data ({ARCHIVE}) is not here; name it in TITANOMACHY_BABI to compare with it")
    stories: dict[str, list[Story]] = {name + part: [] for name in TASKS for part in ("", " test")}
    with tarfile.open(path) as tar:
        for member in tar:
            name = Path(member.name).name.split("_")[0]
            if name in TASKS and member.isfile():
                found = parse(io.TextIOWrapper(tar.extractfile(member), encoding="ascii").read())
                stories[name] += found
                stories[name + " test"] += found if "_test" in member.name else []
    return stories


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if isinstance(task, EventTask)])
def test_rules_reproduce_every_released_question(name: str, released: dict[str, list[Story]]) -> None:
    task, missed = TASKS[name], 0
    for story in released[name]:
        told, asked = Chronicle(), {len(item.facts): item for item in story.items}
        for fact in story.facts[: max(asked)]:
            told.tell(event_of(fact))
            count = len(told.events)
            found = task.candidates(told) if count % 2 == 0 else []
            if count not in asked:
                missed += bool(found)
                continue
            item = asked[count]
            assert item.supports in [supports for triggered in found for supports in triggered], item
            phrases = (task.phrase(told, item.supports, Random(seed)) for seed in range(100))
            assert (item.question, item.answer) in phrases, item
    questions = sum(len(story.items) for story in released[name])
    # Only in qa3 did the original now and then (0.4 %) pass over a moment at which a question was possible.
    assert questions >= 1925 and missed <= (0.005 * questions if name == "qa3" else 0)


def test_cheats_score_as_known_and_the_comparison_accepts_every_answer(released: dict[str, list[Story]]) -> None:
    def share(name: str, cheat: Callable[[str, str, tuple[str, ...]], str]) -> float:
        items = [item for story in released[name + " test"] for item in story.items]
        labels = TASKS[name].labels
        right = [cheat(" ".join(item.facts), item.question.strip(), labels) == item.answer for item in items]
        assert all(matches(item.answer, item.answer, item.question, labels) for item in items)
        return sum(right) / len(right)

    assert share("qa1", last_mentioned) == pytest.approx(0.527)
    assert share("qa2", last_mentioned) == pytest.approx(0.399)
    assert share("qa2", last_touchers_room) == pytest.approx(0.852)
    assert share("qa5", last_mentioned) == pytest.approx(0.24, abs=0.005)


def describe(story: Story, events: bool) -> Counter[tuple[str, str]]:
    """Counts of one story by (group, value): shares are taken within a group."""
    counts: Counter[tuple[str, str]] = Counter()
    for fact in story.facts:
        words = fact.rstrip(".").split()
        if not events:
            counts["fact", re.sub(NAMES, "_", fact)] += 1
            continue
        kind = event_of(fact).kind
        counts["event", kind] += 1
        counts[f"verb of {kind}", " ".join(words[1:3]) if words[1] == "went" else words[1]] += 1
        counts[f"there after {kind}", str(words[-1] == "there")] += 1
    if len(story.facts) == 2 and RELATION.match(story.facts[0]):
        counts["relation", story.facts[0].split()[3]] += 1
        first, second = (fact.rstrip(".").split() for fact in story.facts)
        shared = ({first[1], first[6]} & {second[1], second[6]}).pop()
        counts["middle room", f"subject of {(first[1] == shared) + (second[1] == shared)} facts"] += 1
    for item in story.items:
        count = len(item.facts)
        counts["question", re.sub(NAMES, "_", item.question)] += 1
        counts["answer", item.answer] += 1
        counts["facts before", f"<= {next(bound for bound in (2, 4, 8, 16, 32, 64, 128, 999) if count <= bound)}"] += 1
        for place, index in enumerate(item.supports):
            age = count - index
            bound = next(bound for bound in (1, 2, 3, 4, 5, 8, 16, 32, 999) if age <= bound)
            counts[f"age of support {place + 1}", f"<= {bound}"] += 1
        if events:
            counts["first support", event_of(item.facts[item.supports[0]]).kind] += 1
    return counts


def shares(stories: list[Story], events: bool) -> dict[tuple[str, str], tuple[float, float]]:
    """(share, standard error) of every value within its group, the error clustered by story."""
    described = [describe(story, events) for story in stories]
    total: Counter[tuple[str, str]] = Counter()
    sums: Counter[str] = Counter()
    moments: dict[tuple[str, str], list[float]] = {}
    squares: Counter[str] = Counter()
    for counts in described:
        groups: Counter[str] = Counter()
        for (group, _), count in counts.items():
            groups[group] += count
        for group, count in groups.items():
            sums[group] += count
            squares[group] += count * count
        for key, count in counts.items():
            total[key] += count
            square, cross = moments.setdefault(key, [0.0, 0.0])
            moments[key] = [square + count * count, cross + count * groups[key[0]]]
    out = {}
    for key, count in total.items():
        share = count / sums[key[0]]
        square, cross = moments[key]
        variance = square - 2 * share * cross + share * share * squares[key[0]]  # of the ratio's residuals
        out[key] = share, max(variance, 0.0) ** 0.5 / sums[key[0]]
    return out


# What is not fully understood: how far a share may differ. qa14: the order of telling, and so how far back the supports
# lie; qa16: the order of the facts; qa18: which of several chains is asked.
APPROXIMATE = {"qa14": 0.12, "qa16": 0.04, "qa18": 0.08}


@pytest.mark.parametrize("name", list(TASKS))
def test_statistics_equal_the_released_data_within_sampling_error(name: str, released: dict[str, list[Story]]) -> None:
    events = isinstance(TASKS[name], EventTask)
    real = shares(released[name], events)
    ours = shares(simulated(name, 10 * STORIES if name == "qa4" else STORIES), events)
    far = []
    print(f"\n{name}: {'group':<18} {'value':<34} {'real':>7} {'ours':>7} {'sigmas':>7}")
    for key in sorted(real.keys() | ours.keys()):
        (a, a_error), (b, b_error) = real.get(key, (0.0, 0.0)), ours.get(key, (0.0, 0.0))
        error = (a_error**2 + b_error**2) ** 0.5
        sigmas = (a - b) / error if error else 0.0
        print(f"{name}: {key[0]:<18} {key[1]:<34} {a:7.4f} {b:7.4f} {sigmas:7.2f}")
        beyond = abs(a - b) > APPROXIMATE.get(name, 0.0)
        if abs(sigmas) > 4 and max(a, b) > 0.002 and beyond:  # rarer values have too few stories for a normal error
            far.append(f"{key}: real {a:.4f}, ours {b:.4f}, {sigmas:.1f} sigmas")
    assert not far, far
