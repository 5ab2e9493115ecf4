"""What guessers who never read a BABILong context score, and shortcut heuristics that read it without understanding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch

from tasks.babilong import bag_of_words
from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.story import Item
from tasks.babilong.scoring import DISAGREEMENT, commonest_label, last_mentioned, last_touchers_room, last_unasked_label
from tasks.harness.evaluate import average
from tasks.task import Answers, EvaluationBatch, Measurement
from tasks.text.tokenizer import Tokenizer

BAG = "cheat: bag of words"
ONLY = {"cheat: last toucher's room": ("qa2",)}  # what can be said to some questions alone
BAG_ITEMS = 1000  # training items of each question that its bag of words is fitted to
COMMON = frozenset({"the", "is", "in", "of", "to", "a", "did", "does", "was", "where", "what", "who"})  # name nothing
WORD = re.compile(r"[a-z]+", re.IGNORECASE)
BEGUN = re.compile(r"(?=\b([A-Z][^.!?\n]*\.))")  # from any capital letter to the full stop, one within another
Say = Callable[[str, str, str], str]  # names one label for (question's name, context, question)


class Asked(Protocol):
    """What of BABILong whoever answers its evaluation batches needs."""

    tokenizer: Tokenizer
    trained: tuple[str, ...]

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """Of the test."""

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """What is scored."""

    def oracle(self, exam: EvaluationBatch) -> Answers:
        """The right answers."""

    def read(self, exam: EvaluationBatch) -> list[tuple[str, str]]:
        """Context and question of each row."""

    def poll(self, question: str, count: int = ...) -> list[Item]:
        """Training items of a question, on which majorities are counted."""


def floors(task: Asked) -> dict[str, list[Measurement]]:
    """The scores of all of them on the task's test, by name; one evaluation is held at a time."""
    majority = {question: majorities(task.poll(question)) for question in task.trained}
    ways: dict[str, Say] = {
        "floor: majority answer": lambda name, _, __: majority[name][""],
        "floor: majority answer to the question": lambda name, _, asked: majority[name].get(asked, majority[name][""]),
        "cheat: last mentioned label": _cheat(last_mentioned),
        "cheat: last mentioned label not in the question": _cheat(last_unasked_label),
        "cheat: commonest label": _cheat(commonest_label),
        "cheat: last toucher's room": _cheat(last_touchers_room),
        BAG: _bags({question: task.poll(question, BAG_ITEMS) for question in task.trained}),
    }
    found: dict[str, list[Measurement]] = {name: [] for name in ("floor: uniform choice", *ways)}
    for exam in task.exams("test"):
        right = _shares(task, exam, task.oracle(exam))
        found["floor: uniform choice"] += _uniform(task, exam, right)
        for name, say in ways.items():
            if exam.batch.where["question"] in ONLY.get(name, TASKS):
                found[name] += _shares(task, exam, _answers(task, exam, say))
    return {name: average(measurements) for name, measurements in found.items() if measurements}


def words_of(facts: str, asked: str) -> list[str]:
    """What a bag holds of facts and a question: words of each fact, beside which of the question's words the fact names.

    A word that the question names is held by its place there, so one reader serves all names. Of the order of the facts a
    bag knows nothing.
    """
    places = {word.lower(): f"?{place}" for place, word in enumerate(WORD.findall(asked)) if word.lower() not in COMMON}
    found = [f"? {word}" for word in WORD.findall(asked)]
    for fact in facts.split("."):
        told = [places.get(word.lower(), word) for word in WORD.findall(fact)]
        named = " ".join(sorted({word for word in told if word[0] == "?"}))
        found += [f"{named} {word}" for word in told]
    return found


def story_of(context: str, known: set[str]) -> str:
    """The sentences of a context that are told in training too: whoever trained knows facts from book text."""
    return " ".join(fact for fact in BEGUN.findall(context) if fact in known)


def _bags(polled: dict[str, list[Item]]) -> Say:
    """Logistic regression on the words of facts and question, fitted to training items of each question."""
    read = {}
    for name, items in polled.items():
        examples = [words_of(" ".join(item.facts), item.question) for item in items]
        read[name] = bag_of_words.fit(examples, [item.answer for item in items])
    known = {name: {fact for item in items for fact in item.facts} for name, items in polled.items()}
    return lambda name, context, asked: read[name].predict([words_of(story_of(context, known[name]), asked)])[0]


def _uniform(task: Asked, exam: EvaluationBatch, right: list[Measurement]) -> list[Measurement]:
    """Who says each of the choices equally often, as the task scores it: a list is right in any order, "none" maybe not."""
    name = exam.batch.where["question"]
    each = [_shares(task, exam, _answers(task, exam, lambda *_, label=label: label)) for label in TASKS[name].answers]
    means = {m.metric: sum(mark.value for marks in each for mark in marks if mark.metric == m.metric) for m in right}
    return [m._replace(value=means[m.metric] / len(each)) for m in right]


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


def _shares(task: Asked, exam: EvaluationBatch, answers: Answers) -> list[Measurement]:
    """Shares of right answers; whether two scorers agree on a shortcut heuristic is of no interest."""
    return [m for m in task.mark(exam, answers) if m.metric != DISAGREEMENT]


def _answers(task: Asked, exam: EvaluationBatch, say: Say) -> Answers:
    """What somebody answers who names one label for each row."""
    name = exam.batch.where["question"]
    said = [say(name, context, asked) for context, asked in task.read(exam)]
    choice = torch.tensor([TASKS[name].answers.index(label) for label in said])
    texts = tuple(tuple(task.tokenizer.encode(label).tolist()) for label in said)
    shape = exam.batch.targets.shape  # no memory for as many zeros as a long text has tokens
    return Answers(torch.zeros(()).expand(shape), torch.zeros((), dtype=torch.bool).expand(shape), choice, texts)
