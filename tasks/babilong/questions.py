"""Which bAbI questions BABILong asks: of our simulator's stories or of released ones, each split apart, short enough to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import items
from tasks.babilong.babi.story import Item
from tasks.babilong.babi.world import pick

SIMULATOR = "simulator"
RELEASED = "released"  # how rows name stories that come from files
BARREN = 100_000  # stories in a row, none of which fits, after which a length is given up
SHARES = {"train": 0.6, "validation": 0.8, "test": 1.0}  # up to which place the stories of each split stand


class StoryQuestion(NamedTuple):
    """A question, and those that its story asked before."""

    item: Item
    earlier: tuple[Item, ...]


def split_of(question: str, facts: tuple[str, ...]) -> str:
    """The one split that may tell stories of a question with these first facts: 60 % train, 20 % and 20 % examine.

    Stories are split whole, by their beginning. Of qa20's, of which few are told, 50 % train, 25 % and 25 % examine.
    """
    task = TASKS[question]
    place = task.place(facts[: task.beginning])
    return next(split for split, end in SHARES.items() if place < end)


def official_most(length: int) -> int:
    """The most facts that BABILong asks about at a length above 0: 300 tokens are the prompt's, and a fact has 8."""
    return (length - 300) // 8 - 1


def least_length(facts: int) -> int:
    """The smallest length at which BABILong asks about so many facts."""
    return 300 + 8 * (facts + 1)


def kind(source: str) -> str:
    """What rows say of a source: `simulator`, or `released` for files."""
    return SIMULATOR if source == SIMULATOR else RELEASED


def check(source: str, questions: tuple[str, ...], split: str) -> None:
    """ValueError naming the questions that a source does not hold; our simulator tells all."""
    lacking = [] if source == SIMULATOR else [q for q in questions if not items(source, q, split)]
    if lacking:
        raise ValueError(f"'{source}' holds no {split} questions of {', '.join(lacking)}: ask others.")


def draw(
    random: Random,
    source: str,
    split: str,
    question: str,
    count: int,
    most_facts: int,
    fits: Callable[[Item], bool],
) -> list[StoryQuestion]:
    """`count` of a split's items that fit, uniformly, however many of them a story has.

    Released ones are drawn with replacement for training; an evaluation asks no question about the same facts twice, so perhaps
    fewer. Raises ValueError where nothing fits; no item of more than `most_facts` facts may.
    """
    if source != SIMULATOR:
        released = [told for told in _released(source, question, split) if fits(told.item)]
        if not released:
            raise ValueError(
                f"'{source}' has no {split} question of {question} that fits and that no training on another source may have "
                "told: ask a larger length or other files."
            )
        if split == "train":
            return [pick(random, released) for _ in range(count)]
        released = list({_asked(told.item): told for told in released}.values())
        return _shuffled(random, released, min(count, len(released)))
    fitting: list[StoryQuestion] = []
    seen: set[tuple] = set()
    stories = barren = 0
    while stories < count and barren < BARREN:
        told = tuple(TASKS[question].story(random, most_facts, lambda facts: split_of(question, facts) == split))
        new = [StoryQuestion(item, told[:place]) for place, item in enumerate(told) if fits(item)]
        if split != "train":
            new = [told for told in new if _asked(told.item) not in seen and not seen.add(_asked(told.item))]
        fitting += new
        stories, barren = (stories + 1, 0) if new else (stories, barren + 1)
    if stories < count and (split == "train" or not fitting):
        raise ValueError(f"No story of {question} was found that fits: raise the length.")
    return _shuffled(random, fitting, min(count, len(fitting)))


def untold(taught: str, source: str, question: str) -> Callable[[Item], bool]:
    """Whether a test item of `source` is none that training on `taught` may have told; one source keeps its splits apart itself.

    The simulator tells in training whatever begins as stories of its training's share do; files tell what they hold.
    """
    if kind(taught) == kind(source):
        return lambda item: True
    if taught == SIMULATOR:
        return lambda item: split_of(question, item.facts) == "test"
    told = {_asked(item) for split in ("train", "validation") for item in items(taught, question, split)}
    return lambda item: _asked(item) not in told


def _asked(item: Item) -> tuple[tuple[str, ...], str]:
    """What makes two questions the same."""
    return item.facts, item.question


def _released(source: str, question: str, split: str) -> Iterator[StoryQuestion]:
    """The questions of files in their order; a story goes on while its facts do."""
    earlier: tuple[Item, ...] = ()
    for item in items(source, question, split):
        if earlier and item.facts[: len(earlier[-1].facts)] != earlier[-1].facts:
            earlier = ()
        yield StoryQuestion(item, earlier)
        earlier += (item,)


def _shuffled(random: Random, items: list[StoryQuestion], count: int) -> list[StoryQuestion]:
    """`count` of the items, drawn without replacement."""
    for place in range(count):
        other = place + int(random.random() * (len(items) - place))
        items[place], items[other] = items[other], items[place]
    return items[:count]
