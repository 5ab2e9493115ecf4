"""Which bAbI questions BABILong asks: of our simulator's stories or of released ones, each split apart, short enough to fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from tasks import babi_files
from tasks.babi import TASKS
from tasks.babi_story import Item
from tasks.babi_world import pick

SIMULATOR = "simulator"
RELEASED = "released"  # how rows name stories that come from files
BARREN = 100_000  # stories in a row, none of which fits, after which a length is given up
SHARES = {"train": range(0, 154), "validation": range(154, 205), "test": range(205, 256)}


class Told(NamedTuple):
    """A question, and those that its story asked before."""

    item: Item
    earlier: tuple[Item, ...]


def split_of(beginning: tuple[str, ...]) -> str:
    """The one split that may tell stories with these first two facts: 60 % of them train, 20 % and 20 % examine."""
    first = hashlib.sha256("\n".join(beginning).encode()).digest()[0]
    return next(split for split, share in SHARES.items() if first in share)


def kind(source: str) -> str:
    """What rows say of a source: `simulator`, or `released` for files."""
    return SIMULATOR if source == SIMULATOR else RELEASED


def check(source: str, questions: tuple[str, ...], split: str) -> None:
    """ValueError naming the questions that a source does not hold; our simulator tells all."""
    lacking = [] if source == SIMULATOR else [q for q in questions if not babi_files.items(source, q, split)]
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
) -> list[Told]:
    """`count` of a split's items that fit, uniformly, however many of them a story has.

    Released ones are drawn with replacement for training; an exam asks each at most once, so perhaps fewer. Raises
    ValueError where nothing fits; no item of more than `most_facts` facts may.
    """
    if source != SIMULATOR:
        released = [told for told in _released(source, question, split) if fits(told.item)]
        if not released:
            raise ValueError(f"'{source}' has no {split} question of {question} that fits: ask a larger length.")
        if split == "train":
            return [pick(random, released) for _ in range(count)]
        return _shuffled(random, released, min(count, len(released)))
    fitting: list[Told] = []
    stories = barren = 0
    while stories < count:
        if barren == BARREN:
            raise ValueError(f"No story of {question} was found that fits: raise the length.")
        told = tuple(TASKS[question].story(random, most_facts, lambda facts: split_of(facts) == split))
        new = [Told(item, told[:place]) for place, item in enumerate(told) if fits(item)]
        fitting += new
        stories, barren = (stories + 1, 0) if new else (stories, barren + 1)
    return _shuffled(random, fitting, count)


def _released(source: str, question: str, split: str) -> Iterator[Told]:
    """The questions of files in their order; a story goes on while its facts do."""
    earlier: tuple[Item, ...] = ()
    for item in babi_files.items(source, question, split):
        if earlier and item.facts[: len(earlier[-1].facts)] != earlier[-1].facts:
            earlier = ()
        yield Told(item, earlier)
        earlier += (item,)


def _shuffled(random: Random, items: list[Told], count: int) -> list[Told]:
    """`count` of the items, drawn without replacement."""
    for place in range(count):
        other = place + int(random.random() * (len(items) - place))
        items[place], items[other] = items[other], items[place]
    return items[:count]
