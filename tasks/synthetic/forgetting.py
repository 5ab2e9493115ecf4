"""Forgetting: many facts, some of them overwritten; asked for what holds now. Old facts must be replaced, not added to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

import torch

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE, Answers, Batch, EvaluationBatch, Measurement

BLANK, ASK = 0, 1
KEYS = 2  # the first key


class Forgetting(SymbolTask):
    """Forgetting: the current value of a key among many facts, by facts, overwritten facts and distance.

    A text is `facts` pairs of a key and its value in random order, `overwrites` of which come again later with another
    value; then `distance` blanks; then the question, a key. Overwritten and untouched keys are asked apart (`asked`),
    and `stale_error` is the share of overwritten keys that are answered with the value that no longer holds. Training
    asks all keys of a text, one after another, and draws distances up to the longest in steps of 8; with several `facts` or
    `overwrites` every pair of them is a cell. Of `vocab` symbols a blank and a question mark are taken; the others are
    keys and values, half each.

    >>> print(aligned(create("forgetting", facts=(4,), overwrites=(1,), distances=(4,), vocab=16)))
    k3 v1 k0 v4 k4 v5 k3 v6 k5 v2 . . . . ? k3
    _  _  _  _  _  _  _  _  _  _  _ _ _ _ _ v6
    """

    name = "forgetting"
    exam_settings = ("test_facts", "test_distances", "samples")

    def __init__(
        self,
        facts: tuple[int, ...] = (8, 16),
        overwrites: tuple[int, ...] = (2, 8),
        distances: tuple[int, ...] = (0, 64),
        vocab: int = 130,
        test_facts: tuple[int, ...] = (),
        test_distances: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.facts, self.overwrites, self.distances = tuple(facts), tuple(overwrites), tuple(distances)
        self.test_facts, self.test_distances = tuple(test_facts) or self.facts, tuple(test_distances) or self.distances
        self.vocab, self.samples = vocab, samples
        self.values = KEYS + (vocab - KEYS) // 2  # the first value
        most, least = max((*self.facts, *self.test_facts), default=0), min((*self.facts, *self.test_facts), default=0)
        gaps = (*self.distances, *self.test_distances)
        refuse(
            (least < 1 or samples < 1, "forgetting needs facts and samples of at least 1."),
            (not gaps or min(gaps) < 0, "forgetting needs distances of at least 0."),
            (
                not self.overwrites or min(self.overwrites) < 0 or max(self.overwrites) > least,
                f"forgetting can overwrite between 0 and all of its facts: choose overwrites from 0 to {least}.",
            ),
            (most > self.values - KEYS, f"forgetting with {most} facts needs a vocab of at least {2 * most + KEYS}."),
            (vocab - self.values < 2, "forgetting needs a vocab of at least 6, for two values."),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        longest = max(self.distances)
        distance = draws.choice([*range(0, longest, 8), longest])
        facts, overwrites = draws.choice(self.facts), draws.choice(self.overwrites)
        return {"facts": facts, "overwrites": overwrites, "distance": distance, "asked": "all"}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of facts and overwrites at every distance, each for both kinds of key where there are both."""
        test = split == "test"
        for facts in self.test_facts if test else self.facts:
            for overwrites in self.overwrites:
                for distance in self.test_distances if test else self.distances:
                    where = {"facts": facts, "overwrites": overwrites, "distance": distance}
                    kinds = (("overwritten", overwrites), ("untouched", facts - overwrites))
                    yield from ({**where, "asked": asked} for asked, count in kinds if count)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        keys = draws.sample(range(KEYS, self.values), where["facts"])
        twice = keys[: where["overwrites"]]
        order, holds, tokens = keys + twice, {}, []
        draws.shuffle(order)
        for key in order:
            value = draws.randrange(self.values, self.vocab)
            while value == holds.get(key):
                value = draws.randrange(self.values, self.vocab)
            holds[key] = value
            tokens += [key, value]
        tokens += [BLANK] * where["distance"]
        asked = {"all": keys, "overwritten": twice, "untouched": keys[len(twice) :]}[where["asked"]]
        asked = draws.sample(asked, len(asked) if where["asked"] == "all" else 1)
        targets = [IGNORE] * len(tokens)
        for key in asked:
            tokens, targets = [*tokens, ASK, key], [*targets, IGNORE, holds[key]]
        return SymbolText(tokens, targets)

    def exam(self, batch: Batch) -> EvaluationBatch:
        """One question at the end, answered by choice among the values too, which tells a stale answer."""
        return EvaluationBatch(
            batch, batch.tokens.shape[1], tuple((value,) for value in range(self.values, self.vocab))
        )

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterator[Measurement]:
        """The most probable symbol; and which value was said, where the old one is the error in question."""
        where, right = exam.batch.where, answers.hit[:, -1].double()
        yield Measurement("accuracy", right.mean().item(), len(right), where)
        if where["asked"] == "overwritten":
            said = answers.choice + self.values
            stale = [v.item() == _history(row.tolist())[-2] for v, row in zip(said, exam.batch.tokens, strict=True)]
            yield Measurement("stale_error", sum(stale) / len(stale), len(stale), where)

    def symbol(self, token: int) -> str:
        named = {BLANK: ".", ASK: "?"}
        return named.get(token) or (f"k{token - KEYS}" if token < self.values else f"v{token - self.values}")

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The last pair of the key before any question."""
        facts = list(tokens).index(ASK)
        last = max(i for i in range(facts) if tokens[i] == tokens[place])
        return [last, last + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value; the last and the commonest one; the last of a key that came twice, or once; the key's first one.

        The last of these looks the key up and forgets nothing: a reference for whoever adds facts and never replaces them.
        """
        rules: dict[str, Callable[[list[int]], int | None]] = {
            "floor: uniform values": lambda row: None,
            "floor: last value": lambda row: last_of(row, len(row) - 1, self.values, self.vocab),
            "cheat: commonest value": lambda row: commonest_of(row, len(row) - 1, self.values, self.vocab),
            "cheat: last value of a repeated key": lambda row: _last_value(row, times=2),
            "cheat: last value of a key that came once": lambda row: _last_value(row, times=1),
            "reference: first value of the key": lambda row: _history(row)[0],
        }
        return {name: partial(self._said, says=says) for name, says in rules.items()}

    def _said(self, exam: EvaluationBatch, says: Callable[[list[int]], int | None]) -> Answers:
        """Answers by a rule; None is a guess, cut into equal shares: row i says value i, and hits are chances."""
        rows, count = exam.batch.tokens.tolist(), self.vocab - self.values
        said = [says(row) for row in rows]
        guessed = [self.values + i % count if value is None else value for i, value in enumerate(said)]
        hit = torch.zeros(exam.batch.targets.shape, dtype=torch.double)
        truth = exam.batch.targets[:, -1].tolist()
        hit[:, -1] = torch.tensor([1 / count if v is None else float(v == t) for v, t in zip(said, truth, strict=True)])
        return Answers(torch.zeros(hit.shape), hit, torch.tensor(guessed) - self.values)


def _last_value(row: list[int], times: int) -> int:
    """The last value whose key came so many times in the facts, whichever key is asked; the last of all where none did."""
    facts = row.index(ASK)
    keys, values = row[:facts:2], row[1:facts:2]
    came = Counter(keys)
    fitting = [value for key, value in zip(keys, values, strict=False) if key != BLANK and came[key] == times]
    return fitting[-1] if fitting else row[1]


def _history(row: list[int]) -> list[int]:
    """The values that the asked key has had, in order."""
    facts = row.index(ASK)
    return [row[i + 1] for i in range(0, facts, 2) if row[i] == row[-1]]
