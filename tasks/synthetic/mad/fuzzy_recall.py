"""MAD's fuzzy recall: in-context recall where a key, and a value, is a motif of several symbols."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch

from tasks.harness.floors import Reader
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import SymbolText, Where, commonest_of, last_asked, last_of, refuse
from tasks.task import IGNORE, Answers, EvaluationBatch

Motif = tuple[int, ...]


class FuzzyRecall(MadTask):
    """MAD fuzzy recall: the value of every motif of keys that comes again, by motif length beside the other axes.

    A key is 1 to `key_motif` different symbols in training and exactly as many in the evaluations; a value is 1 to
    `value_motif`. Of `vocab` symbols one fills the text from the left up to its length; half of the others are for
    keys, half for values. Published axes: vocab 16 to 128, length 128 to 1024, examples 12800 down to 800.

    >>> print(aligned(create("mad-fuzzy-recall", length=24, key_motif=2, value_motif=2)))
    . . k2 k1 v1 k4 k6 v0 k3 k1 v1 v5 k5 k4 v4 v7 k0 k3 v0 v3 k3 k1 v1 v5
    _ _ _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  v1 v5 _
    """

    name = "mad-fuzzy-recall"

    def __init__(
        self,
        vocab: int = 16,
        length: int = 128,
        key_motif: int = 3,
        value_motif: int = 3,
        examples: int = 12800,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        self.filler = vocab - 1
        self.values = self.filler // 2
        self.key_motif, self.value_motif = key_motif, value_motif
        refuse(
            (min(key_motif, value_motif) < 1, f"{self.name} needs motifs of at least 1 symbol."),
            (
                self.values < max(key_motif, value_motif, 2),
                f"{self.name} with these motifs needs a vocab of at least {2 * max(key_motif, value_motif, 2) + 1}.",
            ),
        )
        super().__init__(vocab, length, examples, test_lengths, samples, shortest=2 * (key_motif + value_motif))

    def lesson(self, draws: Random, progress: float) -> Where:
        return {**self.cell(self.length), "keys": "of any length"}

    def cell(self, length: int) -> Where:
        return {"key_motif": self.key_motif, **super().cell(length)}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        shortest = 1 if "keys" in where else self.key_motif
        pairs: list[tuple[Motif, Motif]] = []
        bound: dict[Motif, Motif] = {}
        room = where["length"]
        while room >= 2 * (self.key_motif + self.value_motif) or not pairs:
            key = self._motif(draws, 0, self.values, shortest, self.key_motif)
            if key not in bound:
                bound[key] = self._motif(draws, self.values, self.filler, 1, self.value_motif)
            pairs.append((key, bound[key]))
            room -= len(key) + len(bound[key])
        key = draws.choice(list(bound))
        pairs.append((key, bound[key]))
        return self._row(pairs, where["length"])

    def _motif(self, draws: Random, first: int, end: int, shortest: int, longest: int) -> Motif:
        return tuple(draws.sample(range(first, end), draws.randint(shortest, longest)))

    def _row(self, pairs: list[tuple[Motif, Motif]], length: int) -> SymbolText:
        """The pairs one after another; a value is asked where its key has been before, from the key's last symbol on."""
        tokens, targets, seen = [], [], set()
        for key, value in pairs:
            tokens += key + value
            asked = value if key in seen else (IGNORE,) * len(value)
            targets += (IGNORE,) * (len(key) - 1) + asked + (IGNORE,)
            seen.add(key)
        missing = length - len(tokens)
        return SymbolText([self.filler] * missing + tokens, [IGNORE] * missing + targets)

    def symbol(self, token: int) -> str:
        return "." if token == self.filler else f"k{token}" if token < self.values else f"v{token - self.values}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The first pair with the key that stands before or at `place`."""
        pairs = self._pairs(tokens)
        asked = next(key for begin, end, key in reversed(pairs) if begin + len(key) - 1 <= place)
        begin, end = next((begin, end) for begin, end, key in pairs if key == asked)
        return list(range(begin, end))

    def _pairs(self, tokens: Sequence[int]) -> list[tuple[int, int, Motif]]:
        """(begin, end, key) of every pair of a text."""
        begins = [i for i, t in enumerate(tokens) if t < self.values and (i == 0 or not tokens[i - 1] < self.values)]
        pairs = []
        for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True):
            pairs.append((begin, end, tuple(token for token in tokens[begin:end] if token < self.values)))
        return pairs

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        tokens = exam.batch.tokens[row].tolist()
        places = self.sources(tokens, last_asked(exam, row))
        return (self.spell(tokens[i] for i in places),)

    def readers(self) -> dict[str, Reader]:
        """Guessing a symbol that the value has not had yet; the last and the commonest one; what last followed this symbol."""
        return {
            "floor: uniform values": self._unsaid,
            "floor: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.values, self.filler)),
            "cheat: commonest value so far": self.cheat(self._commonest_unsaid),
            "cheat: what followed the last symbol": self.cheat(self._what_followed),
        }

    def _said(self, tokens: Sequence[int], place: int) -> list[int]:
        """The symbols that the value at `place` has had up to there."""
        begin = place + 1
        while begin and self.values <= tokens[begin - 1] < self.filler:
            begin -= 1
        return list(tokens[begin : place + 1])

    def _commonest_unsaid(self, tokens: Sequence[int], place: int) -> int:
        """The commonest symbol of values so far that this one has not had yet: none comes twice in one value."""
        said = self._said(tokens, place)
        others = [token for token in tokens[: place + 1] if token not in said]
        return commonest_of(others, place, self.values, self.filler)

    def _what_followed(self, tokens: Sequence[int], place: int) -> int:
        """The value's symbol that last came behind an equal symbol: of a key its last symbol alone is looked at."""
        before = (i + 1 for i in range(place - 1, -1, -1) if tokens[i] == tokens[place])
        return next((tokens[i] for i in before if self.values <= tokens[i] < self.filler), self.values)

    def _unsaid(self, exam: EvaluationBatch) -> Answers:
        """Chances of right guesses: no symbol comes twice in one value."""
        hit = torch.zeros(exam.batch.targets.shape, dtype=torch.double)
        for row, place in (exam.batch.targets != IGNORE).nonzero().tolist():
            said = len(self._said(exam.batch.tokens[row].tolist(), place))
            hit[row, place] = 1 / (self.filler - self.values - said)
        return Answers(torch.zeros(hit.shape), hit)
