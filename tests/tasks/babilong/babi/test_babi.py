"""The bAbI simulator held to the released data: every question by its rules, and the statistics of its stories.

The released data (v1.2, `en-10k`, CC BY 3.0) is no part of the project: TITANOMACHY_BABI names it, or it lies in a
folder `shared/data` beside the project.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import Story
from tasks.babilong.babi.story import EventTask
from tasks.babilong.babi.world import Chronicle
from tasks.babilong.scoring import last_mentioned, last_touchers_room, matches
from tests.support.babi_stories import STORIES, event_of, simulated

NAMES = re.compile(
    r"\b(?:Daniel|John|Mary|Sandra|Bill|Fred|Jeff|Julie|Lily|Bernhard|Brian|Julius|Greg|Gertrude|Winona|Emily|Jessica|"
    r"gertrude|winona|emily|jessica|Sumit|Yann|Jason|Antoine|sumit|yann|jason|antoine|apple|football|milk|north|south|"
    r"east|west|\w+room|garden|hallway|kitchen|office|cinema|park|school|"
    r"triangle|(?:pink|blue|red|yellow) \w+|box of chocolates|box|chest|chocolate|container|suitcase|"
    r"mouse|wolf|sheep|cat|frog|lion|rhino|swan|[Mm]ice|[Ww]olves|Sheep|[Cc]ats)\b"
)
RELATION = re.compile(r"The \w+ is (?:north|south|east|west) of the \w+\.")


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
        if abs(sigmas) > 4 and max(a, b) > 0.002:  # rarer values have too few stories for a normal error
            far.append(f"{key}: real {a:.4f}, ours {b:.4f}, {sigmas:.1f} sigmas")
    assert not far, far
