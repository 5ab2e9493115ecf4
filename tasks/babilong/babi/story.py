"""What a bAbI task is: stories of facts, questions about them, and the loop that most of the tasks share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from tasks.babilong.babi.world import WORDING, Chronicle, Event, Scene, World, pick, wordings

RECENT = 5  # a question is triggered by one of the last five facts

Begins = Callable[[tuple[str, ...]], bool]  # says whether a story may begin with these facts
Round = tuple[list[str], list[tuple[str, str, tuple[int, ...]]]]


class Item(NamedTuple):
    """One question: all facts told before it, its text as released (trailing blank included), and what answers it."""

    facts: tuple[str, ...]
    question: str
    answer: str
    supports: tuple[int, ...]  # indices of the facts that the answer follows from, in the released data's order


class BabiTask(ABC):
    """One of the twenty tasks: a stream of stories, and the closed set of its answers.

    `fewest` is the smallest number of facts that a question can follow, `questions` how many one story has.
    """

    name: str
    labels: tuple[str, ...]
    fewest: int = 2
    questions: int = 5
    beginning: int = 2  # the facts by which `begins` judges a story

    @property
    def answers(self) -> tuple[str, ...]:
        """Every possible answer; `labels` are what BABILong's comparison looks for in one."""
        return self.labels

    @abstractmethod
    def story(self, random: Random, most: int | None = None, begins: Begins | None = None) -> Iterator[Item]:
        """The questions of one new story, each with the facts before it; ends early before exceeding `most` facts.

        A story whose first facts `begins` refuses has no questions.
        """

    def place(self, beginning: tuple[str, ...]) -> float:
        """Where stories with this beginning stand between 0 and 1, of which every split has its own part.

        A hash, unless so few beginnings are told that a hash would give a split more of one answer than of another.
        """
        return hashlib.sha256("\n".join(beginning).encode()).digest()[0] / 256

    @abstractmethod
    def extremes(self) -> tuple[str, str, str]:
        """The shortest and the longest fact, and the longest question, that the task can tell and ask."""


class RoundTask(BabiTask):
    """A task that tells its facts in rounds and asks after each."""

    @abstractmethod
    def rounds(self, random: Random) -> Iterator[Round]:
        """The rounds of one new story: new facts, and (question, answer, supports) of what is asked about all so far."""

    def story(self, random: Random, most: int | None = None, begins: Begins | None = None) -> Iterator[Item]:
        facts: list[str] = []
        for told, questions in self.rounds(random):
            before = len(facts)
            facts += told
            if most is not None and len(facts) > most:
                return
            if begins is not None and before < self.beginning and not begins(tuple(facts[: self.beginning])):
                return
            for question in questions:
                yield Item(tuple(facts), *question)


class EventTask(BabiTask):
    """A task over told events: two events, then a question if one of the last five facts triggers one."""

    forms: tuple[str, ...]  # the questions, with the names of what they ask about
    triggers: tuple[str, ...]  # the kinds of fact that can trigger one

    def __init__(
        self, name: str, world: World, kinds: tuple[str, ...], labels: tuple[str, ...], there: float = 1.0
    ) -> None:
        self.name = name
        self.world = world
        self.kinds = kinds  # drawn uniformly
        self.labels = labels
        self.there = {"get": there, "drop": 0.2}  # share of sentences that end in "there"

    @abstractmethod
    def supports(self, told: Chronicle, index: int) -> list[tuple[int, ...]]:
        """For each question that fact `index` triggers, the facts that answer it; as often as it is to be drawn."""

    @abstractmethod
    def phrase(self, told: Chronicle, supports: tuple[int, ...], random: Random) -> tuple[str, str]:
        """Question and answer for the facts that `supports` found."""

    def candidates(self, told: Chronicle) -> list[list[tuple[int, ...]]]:
        """The supports of the questions that each recent fact triggers, oldest fact first."""
        count, found = len(told.events), []
        for index in range(max(0, count - RECENT), count):
            if told.events[index].kind in self.triggers and (supports := self.supports(told, index)):
                found.append(supports)
        return found

    def story(self, random: Random, most: int | None = None, begins: Begins | None = None) -> Iterator[Item]:
        scene, told, facts, asked = Scene(self.world, self.kinds, random), Chronicle(), [], 0
        while asked < self.questions and (most is None or len(facts) + 2 <= most):
            for _ in range(2):
                event = scene.event()
                told.tell(event)
                facts.append(self.sentence(event, random))
            if begins is not None and len(facts) == 2 and not begins(tuple(facts)):
                return
            candidates = self.candidates(told)
            if candidates:
                supports = pick(random, pick(random, candidates))
                yield Item(tuple(facts), *self.phrase(told, supports, random), supports)
                asked += 1

    def sentence(self, event: Event, random: Random) -> str:
        """The event in words: verbs uniformly, "there" by the task's share."""
        text = pick(random, wordings(event))
        there = event.kind in self.there and random.random() < self.there[event.kind]
        return f"{text} there." if there else f"{text}."

    def extremes(self) -> tuple[str, str, str]:
        names = {"actor": self.world.actors, "recipient": self.world.actors}
        names |= {"thing": self.world.things, "room": self.world.rooms}
        short = {role: min(options, key=len) for role, options in names.items()}
        long = {role: max(options, key=len) for role, options in names.items()}
        facts = []
        for kind in self.kinds:
            share = self.there.get(kind, 0.0)
            for text in WORDING[kind]:
                facts.append(text.format_map(short) + (" there." if share == 1 else "."))
                facts.append(text.format_map(long) + (" there." if share > 0 else "."))
        question = max((form.format_map(long) for form in self.forms), key=len)
        return min(facts, key=len), max(facts, key=len), question
