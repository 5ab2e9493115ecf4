"""Tasks over symbols instead of text: rows drawn from a rule, asked at many places, split by the hash of each row."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from tasks.harness.floors import Reader, sit_each
from tasks.rng import stream
from tasks.task import IGNORE, Answers, Batch, EvaluationBatch, Measurement, Task

EXAM_TOKENS, EXAM_LOGITS = 65536, 2**24  # at most about as many tokens, and logits, in one evaluation batch
CURRICULUM = 0.9  # share of the budget after which training has reached its full length
STEP = 8  # training lengths are multiples of it, so that few shapes occur
SPLITS = ("validation", "test", "train", "train")  # by a row's hash: half of all rows may be trained on
TRIES = 400  # draws after which a split is taken to have no rows

Where = dict[str, Any]


class SymbolText(NamedTuple):
    """A text of symbols and, at each place, the symbol that must follow from it, or IGNORE."""

    tokens: list[int]
    targets: list[int]


class SymbolTask(Task):
    """A task whose texts are drawn symbol by symbol. A subclass says how, and which settings its evaluation walks through.

    `accuracy` is the share of asked places that are right, `exact_match` the share of texts with all of them
    right. No row is in two splits: the hash of its tokens says where it belongs.
    """

    protocol = "trained"
    exam_settings = ("test_lengths", "samples")
    samples: int = 128  # texts for each cell of the evaluation

    @abstractmethod
    def draw(self, draws: Random, where: Where) -> SymbolText:
        """One text under the settings `where`; all texts of equal settings are equally long."""

    @abstractmethod
    def lesson(self, draws: Random, progress: float) -> Where:
        """The settings of one training batch."""

    @abstractmethod
    def cells(self, split: str) -> Iterable[Where]:
        """The settings that the evaluation of a split walks through."""

    @abstractmethod
    def symbol(self, token: int) -> str:
        """A token as a reader sees it, e.g. "k12"."""

    @abstractmethod
    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The places of the text that the answer asked at `place` follows from."""

    @abstractmethod
    def readers(self) -> dict[str, Reader]:
        """Guessers, takers of shortcuts and references (`tasks/task.py`), by the names of their rows."""

    def floors(self) -> dict[str, list[Measurement]]:
        """What each of `readers` scores on the test split."""
        return sit_each(self, self.readers())

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """A batch of one lesson; rows that belong to an evaluation are never drawn."""
        draws = stream(self.name, "train", seed, step)
        return self.batch(lambda: draws, self.lesson(draws, progress), tokens)

    def batch(self, source: Callable[[], Random], where: Where, tokens: int) -> Batch:
        """Training rows of about `tokens` tokens, each drawn from what `source` gives."""
        rows = [self.row("train", source(), where)]
        while len(rows) < tokens // len(rows[0].tokens):
            rows.append(self.row("train", source(), where))
        return _batch(rows, where)

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """`samples` different texts for each cell; fewer where so short a text has no more, so that none counts twice."""
        if split not in ("validation", "test"):
            raise ValueError(f"There is no evaluation '{split}': ask for validation or test.")
        for where in self.cells(split):
            draws = stream(self.name, split, sorted(where.items()), self.vocab)
            rows = self._different(split, draws, where)
            at_once = max(1, min(EXAM_TOKENS, EXAM_LOGITS // self.vocab) // len(rows[0].tokens))
            for i in range(0, len(rows), at_once):
                yield self.exam(_batch(rows[i : i + at_once], where))

    def _different(self, split: str, draws: Random, where: Where) -> list[SymbolText]:
        """Up to `samples` texts of a split, none twice; the search ends where TRIES in a row were there before."""
        rows: dict[tuple[int, ...], SymbolText] = {}
        for _ in range(self.samples):
            drawn = (self.row(split, draws, where) for _ in range(TRIES))
            row = next((row for row in drawn if tuple(row.tokens) not in rows), None)
            if row is None:
                break
            rows[tuple(row.tokens)] = row
        return list(rows.values())

    def exam(self, batch: Batch) -> EvaluationBatch:
        """How a batch is examined: teacher-forced."""
        return EvaluationBatch(batch)

    def row(self, split: str, draws: Random, where: Where) -> SymbolText:
        """The next text drawn that belongs to `split`; ValueError where there seems to be none."""
        for _ in range(TRIES):
            row = self.draw(draws, where)
            if split_of(row.tokens) == split:
                return row
        settings = ", ".join(f"{key} {value}" for key, value in where.items())
        raise ValueError(
            f"{self.name} has too few different texts at {settings} for a {split} split: make them longer."
        )

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """Right places and wholly right texts; a guesser's `hit` may hold chances."""
        asked = exam.batch.targets != IGNORE
        hits = answers.hit.double().where(asked, torch.ones(()).double())
        right = answers.hit.double()[asked]
        yield Measurement("accuracy", right.mean().item(), right.numel(), exam.batch.where)
        yield Measurement("exact_match", hits.prod(1).mean().item(), len(hits), exam.batch.where)

    def spell(self, tokens: Iterable[int]) -> str:
        """Tokens as a reader sees them."""
        return " ".join(map(self.symbol, tokens))

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        """What the last asked answer of a row follows from, neighbouring symbols joined."""
        tokens = exam.batch.tokens[row].tolist()
        return tuple(self.spell(tokens[a:b]) for a, b in runs(self.sources(tokens, last_asked(exam, row))))

    def guess(self, chance: Callable[[Where], float]) -> Reader:
        """Somebody right with a chance at each asked place, independently; their scores are expected ones."""

        def answer(exam: EvaluationBatch) -> Answers:
            shape = exam.batch.targets.shape
            return Answers(torch.zeros(shape), torch.full(shape, chance(exam.batch.where), dtype=torch.double))

        return answer

    def cheat(self, says: Callable[[list[int], int], int]) -> Reader:
        """Somebody who says `says(text, place)` at each asked place, from the text up to there."""

        def answer(exam: EvaluationBatch) -> Answers:
            rows = zip(exam.batch.tokens.tolist(), exam.batch.targets.tolist(), strict=True)
            hits = [
                [target != IGNORE and says(tokens, place) == target for place, target in enumerate(targets)]
                for tokens, targets in rows
            ]
            return Answers(torch.zeros(exam.batch.targets.shape), torch.tensor(hits))

        return answer


def split_of(tokens: Sequence[int]) -> str:
    """The only split that a text may be in."""
    written = np.asarray(tokens, dtype="<i4").tobytes()
    return SPLITS[hashlib.blake2b(written, digest_size=1).digest()[0] % len(SPLITS)]


def length_of_lesson(draws: Random, progress: float, shortest: int, longest: int) -> int:
    """A training length, log-uniform from `shortest` to a limit that grows to `longest`; a multiple of STEP if it can."""
    reach = min(1.0, progress / CURRICULUM) * draws.random()
    length = shortest * (longest / shortest) ** reach
    return min(longest, STEP * math.ceil(length / STEP))


def last_of(tokens: Sequence[int], place: int, first: int, end: int) -> int:
    """The last symbol of `first`, ..., `end` - 1 up to a place of a text; `first` where there is none."""
    return next((tokens[i] for i in range(place, -1, -1) if first <= tokens[i] < end), first)


def commonest_of(tokens: Sequence[int], place: int, first: int, end: int) -> int:
    """The most frequent symbol of `first`, ..., `end` - 1 up to a place, of equals the earliest; `first` where there is none."""
    counts = Counter(token for token in tokens[: place + 1] if first <= token < end)
    return max(counts, key=counts.__getitem__, default=first)


def nearest_to(tokens: Sequence[int], wanted: float, first: int, end: int) -> int:
    """The symbol of `first`, ..., `end` - 1 that stands nearest to a wanted place of a text; `first` where there is none."""
    nearest = min(len(tokens) - 1, max(0, round(wanted)))
    away = (
        -1 if wanted < nearest else 1
    )  # of two at equal distances from the nearest place, the nearer to what is wanted
    for distance in range(len(tokens)):
        for place in (nearest + away * distance, nearest - away * distance):
            if 0 <= place < len(tokens) and first <= tokens[place] < end:
                return tokens[place]
    return first


def last_asked(exam: EvaluationBatch, row: int) -> int:
    """The last place of a row where something is asked."""
    return int((exam.batch.targets[row] != IGNORE).nonzero()[-1])


def runs(places: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring places joined to (first, end)."""
    found: list[tuple[int, int]] = []
    for place in sorted(places):
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def refuse(*problems: tuple[bool, str]) -> None:
    """ValueError with the first sentence whose condition holds."""
    for wrong, sentence in problems:
        if wrong:
            raise ValueError(sentence)


def _batch(rows: list[SymbolText], where: Where) -> Batch:
    tokens = torch.tensor([row.tokens for row in rows])
    return Batch(tokens, torch.tensor([row.targets for row in rows]), where)
