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
    """The marks of all of them on the task's test, by name."""
    exams = list(task.exams("test"))
    majority = {question: majorities(task.poll(question)) for question in task.trained}
    uniform = [m._replace(value=1 / len(e.choices)) for e in exams for m in _shares(task, e, task.oracle(e))]

    def run(say: Say, only: tuple[str, ...] = tuple(TASKS)) -> list[Measurement]:
        sat = [exam for exam in exams if exam.batch.where["question"] in only]
        return average([m for exam in sat for m in _shares(task, exam, _answers(task, exam, say))])

    def cheat(way: Callable[[str, str, tuple[str, ...]], str], *only: str) -> list[Measurement]:
        return run(lambda name, context, asked: way(context, asked, TASKS[name].labels), only or tuple(TASKS))

    rows = {
        "floor: uniform choice": average(uniform),
        "floor: majority answer": run(lambda name, _, __: majority[name][""]),
        "floor: majority answer to the question": run(
            lambda name, _, asked: majority[name].get(asked, majority[name][""])
        ),
        "cheat: last mentioned label": cheat(last_mentioned),
        "cheat: last mentioned label not in the question": cheat(last_unasked_label),
        "cheat: last toucher's room": cheat(last_touchers_room, "qa2"),
    }
    return {name: measurements for name, measurements in rows.items() if measurements}


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
