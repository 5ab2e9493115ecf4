"""A task's evaluation as records that anybody can read: text, answer and settings of every question."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.task import IGNORE, EvaluationBatch, Task
from tasks.text.tokenizer import BYTES

OWN = ("id", "text", "answer", "choices", "places", "tokens_sha256")  # keys of a record beside its settings
Record = dict[str, Any]


def is_generated(task: Task, split: str = "test") -> bool:
    """Whether a split holds questions that this house draws; False for running text, which is scored as it stands."""
    return next(iter(task.exams(split))).bytes is None


def records(task: Task, split: str = "test") -> Iterator[Record]:
    """Every question of a split, in the order in which it is asked.

    `text` is what is read and `answer` what is to follow, symbols in words and text as it stands; where one text asks at several
    places, `answer` holds all answers in order, and `places` says behind how many tokens each is asked.
    `choices` are the answers of a closed set, if there is one. `tokens_sha256` is the hash of the token numbers of text and
    answer in decimals, for whoever reads the text with another tokenizer. What else there is are the settings of the question.
    """
    number = 0
    for exam in task.exams(split):
        for row in range(len(exam.batch.tokens)):
            yield {"id": number, **_asked(task, exam, row), **_settings(exam)}
            number += 1


def _asked(task: Task, exam: EvaluationBatch, row: int) -> Record:
    tokens, targets = exam.batch.tokens[row].tolist(), exam.batch.targets[row].tolist()
    if exam.prompt is None:
        places = [place + 1 for place, target in enumerate(targets) if target != IGNORE]
        answer = [target for target in targets if target != IGNORE]
        return {
            "text": spelled(task, tokens),
            "answer": spelled(task, answer),
            "places": places,
            **_hash(tokens, answer),
        }
    text, truth = tokens[: exam.prompt], [token for token in task.truth(exam, row) if token != exam.stop]
    found = {"text": spelled(task, text), "answer": spelled(task, truth)}
    if exam.choices:
        found["choices"] = [spelled(task, [t for t in choice if t != exam.stop]) for choice in exam.choices]
    return found | _hash(text, truth)


def _hash(text: Sequence[int], answer: Sequence[int]) -> dict[str, str]:
    return {"tokens_sha256": hashlib.sha256(" ".join(map(str, [*text, *answer])).encode()).hexdigest()}


def _settings(exam: EvaluationBatch) -> Record:
    if twice := set(OWN) & set(exam.batch.where):
        raise ValueError(
            f"A setting of a question is called {', '.join(sorted(twice))}, as a part of its record is; rename it."
        )
    return dict(exam.batch.where)


def spelled(task: Task, tokens: Sequence[int]) -> str:
    """Tokens as a reader sees them: a text task's as text, a symbol task's as its symbols, else as numbers."""
    if hasattr(task, "spell"):
        return task.spell(tokens)
    tokenizer = getattr(task, "tokenizer", BYTES if task.vocab == BYTES.vocab else None)
    return tokenizer.decode(list(tokens)) if tokenizer else " ".join(map(str, tokens))
