"""The contract of a task: what is asked, how it is scored, and what trivial baselines score.

A task draws training batches, sets an evaluation, and scores the answers. It never sees a model: `tasks/harness/train.py` and
`tasks/harness/evaluate.py` stand between the two. Everything a task draws comes from generators seeded by its arguments, so equal
settings give equal bytes on any platform.

Who is scored on the test without being a model is of one of three classes, told by the beginning of its name:

- `floor: `, a trivial baseline, says what it says whatever is asked: a guess by chance, the commonest answer, the last symbol.
- `cheat: `, a shortcut heuristic, may read the whole text, compare, count and be fitted to the training split, but it does
  without what the task asks for: the key, the order, the state, who did what when. Who needs no more has understood nothing.
- `reference: ` does what is asked, if in a narrow way: looks the key up but never forgets, copies the one number there is,
  counts n-grams of real text. It is shown beside the models and holds nobody back.

A model has learned something where it is better than the best of all trivial baselines *and* shortcut heuristics. A reader that
is right because it does what is asked is therefore no shortcut heuristic, however simple its rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from schema.settings import construct

FIRST_BIN = 8  # places of a text before this one are one bin of what is measured by position
TRAIN_ON = "train_on"  # the setting that names what is trained before a task is only asked
IGNORE = -100  # a target that is not asked; torch's own default for cross entropy


class Batch(NamedTuple):
    """Rows of equal length with what must be predicted at each place.

    `targets[i, t]` is the token that should follow `tokens[i, : t + 1]`, or IGNORE where nothing is asked.
    """

    tokens: Tensor  # long [b, t]
    targets: Tensor  # long [b, t]
    where: dict[str, Any]  # the settings that the batch was drawn under, e.g. {"length": 4096, "depth": 0.25}


class EvaluationBatch(NamedTuple):
    """A batch to be scored, teacher-forced; with a prompt, it is also answered by choice and by generation.

    The first `prompt` tokens of every row are the question; what follows is the true answer, which only teacher forcing
    may see. `choices` are the token sequences of a closed set (terminator included); `generate` is the largest number of
    tokens to continue greedily, ending early at `stop`.
    """

    batch: Batch
    prompt: int | None = None
    choices: tuple[tuple[int, ...], ...] = ()
    generate: int = 0
    stop: int | None = None
    bytes: Tensor | None = None  # long [b, t], how many bytes of real text each target stands for, where that is scored
    words: Tensor | None = None  # long [b, t], how many words end in it


class Answers(NamedTuple):
    """What a model answered to one evaluation batch. Rows are the evaluation's rows."""

    log_probability: Tensor  # float [b, t], natural logarithm of the target's probability; 0 where nothing is asked
    hit: Tensor  # bool [b, t], the target was the most probable token; False where nothing is asked
    choice: Tensor | None = None  # long [b], index of the most probable of `choices`
    text: tuple[tuple[int, ...], ...] | None = None  # generated tokens of each row, without the stop token


class Measurement(NamedTuple):
    """One number: a mean over `count` items (bytes, questions, steps), under the settings `where`."""

    metric: str
    value: float
    count: int
    where: dict[str, Any]


class Task(ABC):
    """What every task offers. Its constructor's signature is its configuration, as it is for a model.

    A task is named by `name` and described to users by its docstring, whose first line is shown by `bench.py list`.
    """

    name: ClassVar[str]
    protocol: str = "trained"  # printed beside every number
    untrained_protocol: ClassVar[str] = "zero-shot"  # the same where a model was trained on something else
    vocab: int = 256
    exam_version: ClassVar[int] = 1  # raised where the test asks or scores something else than before; rows carry it
    exam_settings: ClassVar[
        tuple[str, ...]
    ] = ()  # no training batch depends on these: a trained model serves any of them

    @classmethod
    def untrained(cls, **settings: Any) -> Task:
        """The task under these settings, for models that were trained on something else and are only asked."""
        return construct(cls, **settings)

    @property
    def training_task(self) -> Task:
        """The task that weights depend on: this one, unless another is trained before it is asked."""
        return self

    def open_ended(self, exam: EvaluationBatch) -> EvaluationBatch:
        """An evaluation batch as it is set to models that have learned from no answer how one ends."""
        return exam

    @abstractmethod
    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """The training batch of one step: about `tokens` tokens in rows of equal length, a pure function of the arguments.

        `progress` runs from 0 to 1 over the budget, for tasks with a curriculum.
        """

    @abstractmethod
    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """The fixed evaluation of a split, "validation" or "test"; the same at every call."""

    @abstractmethod
    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """Measurements of one evaluation batch. Equal (metric, where) of several evaluations are averaged, weighted by count."""

    def finish(self, measurements: list[Measurement]) -> list[Measurement]:
        """A last step over the averaged measurements, for metrics that are no means (perplexity)."""
        return measurements

    @abstractmethod
    def floors(self) -> dict[str, list[Measurement]]:
        """What the readers above score on the test split, by name: metrics and `where` as `mark` gives them."""

    def oracle(self, exam: EvaluationBatch) -> Answers:
        """The answers of somebody who knows: every target certain, every choice and text right. Marked, it scores 100 %."""
        asked = exam.batch.targets != IGNORE
        answers = Answers(torch.zeros(asked.shape), asked.clone())
        if exam.prompt is None:
            return answers
        truths = [self.truth(exam, row) for row in range(len(asked))]
        choice = torch.tensor([exam.choices.index(t) for t in truths]) if exam.choices else None
        texts = (
            tuple(tuple(token for token in truth if token != exam.stop) for truth in truths) if exam.generate else None
        )
        return answers._replace(choice=choice, text=texts)

    @staticmethod
    def truth(exam: EvaluationBatch, row: int) -> tuple[int, ...]:
        """The true answer's tokens of one row, terminator included."""
        targets = exam.batch.targets[row, exam.prompt - 1 :]
        return tuple(int(token) for token in targets[targets != IGNORE])

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        """The pieces of a row's prompt that its answer follows from, for whoever reads a sample."""
        return ()

    def data_hash(self) -> str:
        """A hash of the data that the task reads (files, word lists), for the keys of results; "" for none."""
        return ""


def doubling(length: int) -> Iterator[tuple[int, int]]:
    """First place and end of each bin that a text of `length` places reaches into: 0 to 8, 8 to 16, 16 to 32, ...

    What is measured by position so has few numbers at any length.
    """
    start, end = 0, FIRST_BIN
    while start < length:
        yield start, end
        start, end = end, 2 * end
