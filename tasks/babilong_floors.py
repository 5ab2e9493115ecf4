"""What guessers who never read a BABILong context score, and cheats that read it without understanding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch

from tasks.babi import TASKS
from tasks.babi_story import Item
from tasks.babilong_scoring import DISAGREEMENT, last_mentioned, last_touchers_room, last_unasked_label
from tasks.evaluate import average
from tasks.task import IGNORE, Answers, Exam, Measurement
from tasks.tokenizer import Tokenizer

ONLY = {"cheat: last toucher's room": ("qa2",)}  # what can be said to some questions alone
Say = Callable[[str, str, str], str]  # names one label for (question's name, context, question)


class Asked(Protocol):
    """What of BABILong whoever sits its exams needs."""

    tokenizer: Tokenizer
    trained: tuple[str, ...]

    def exams(self, split: str) -> Iterator[Exam]:
        """Of the test."""

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """What is scored."""

    def oracle(self, exam: Exam) -> Answers:
        """The right answers."""

    def read(self, exam: Exam) -> Iterator[tuple[str, str]]:
        """Context and question of each row."""

    def poll(self, question: str) -> list[Item]:
        """Training items of a question, on which majorities are counted."""


def floors(task: Asked) -> dict[str, list[Measurement]]:
    """The marks of all of them on the task's test, by name; one exam is held at a time."""
    majority = {question: majorities(task.poll(question)) for question in task.trained}
    ways: dict[str, Say] = {
        "floor: majority answer": lambda name, _, __: majority[name][""],
        "floor: majority answer to the question": lambda name, _, asked: majority[name].get(asked, majority[name][""]),
        "cheat: last mentioned label": _cheat(last_mentioned),
        "cheat: last mentioned label not in the question": _cheat(last_unasked_label),
        "cheat: last toucher's room": _cheat(last_touchers_room),
    }
    found: dict[str, list[Measurement]] = {name: [] for name in ("floor: uniform choice", *ways)}
    for exam in task.exams("test"):
        right = _shares(task, exam, task.oracle(exam))
        found["floor: uniform choice"] += [m._replace(value=1 / len(exam.choices)) for m in right]
        for name, say in ways.items():
            if exam.batch.where["question"] in ONLY.get(name, TASKS):
                found[name] += _shares(task, exam, _answers(task, exam, say))
    return {name: average(measurements) for name, measurements in found.items() if measurements}


def _cheat(way: Callable[[str, str, tuple[str, ...]], str]) -> Say:
    return lambda name, context, asked: way(context, asked, TASKS[name].labels)


def majorities(items: Iterable[Item]) -> dict[str, str]:
    """The most frequent answer to each wording of a question, and, under "", to all of them."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        for key in ("", item.question.strip()):
            counts.setdefault(key, Counter())[item.answer] += 1
    # Ties go to the first in the alphabet.
    return {key: min(count, key=lambda answer: (-count[answer], answer)) for key, count in counts.items()}


def _shares(task: Asked, exam: Exam, answers: Answers) -> list[Measurement]:
    """Shares of right answers; whether two scorers agree on a cheat is of no interest."""
    return [m for m in task.mark(exam, answers) if m.metric != DISAGREEMENT]


def _answers(task: Asked, exam: Exam, say: Say) -> Answers:
    """What somebody answers who names one label for each row."""
    name = exam.batch.where["question"]
    said = [say(name, context, asked) for context, asked in task.read(exam)]
    choice = torch.tensor([TASKS[name].answers.index(label) for label in said])
    texts = tuple(tuple(task.tokenizer.encode(label).tolist()) for label in said)
    blank = exam.batch.targets != IGNORE
    return Answers(torch.zeros(blank.shape), torch.zeros_like(blank), choice, texts)
