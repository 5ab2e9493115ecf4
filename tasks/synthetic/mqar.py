"""Multi-query associative recall (Arora et al. 2023, arXiv 2312.04927): pairs, then their keys again in any order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import ClassVar, Literal

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, last_of, length_of_lesson, refuse
from tasks.task import IGNORE

BLANK = 0


class Mqar(SymbolTask):
    """Multi-query associative recall: the values of many keys, by number of pairs (capacity) and length.

    A text of `length` symbols begins with keys and values in turn, all keys different, all values different. Each key
    comes once more, in random order, and there its value is asked; how late follows a power law (`power`: 1 is uniform,
    0.01 the paper's). Between them stand blanks, or `filler="random"` symbols, never a key of the text. Half of `vocab`
    are keys, half values. Training draws from `pairs` and lengths up to `length`; the test asks `test_pairs` at
    `test_lengths`, by default the same pairs at 1, 2 and 4 times the length. The paper's sizes: vocab 8192, length 64 to
    512, 4 to 64 pairs; its own code asks early pairs earlier, which tells something of the answer without reading.

    >>> print(aligned(create("mqar", length=12, pairs=(3,), vocab=16)))
    k1 v3 k7 v0 k3 v1 k3 . k7 . k1 .
    _  _  _  _  _  _  v1 _ v0 _ v3 _
    """

    name = "mqar"
    exam_version: ClassVar[int] = 2  # 2: the order of the questions tells nothing of the order of the pairs
    exam_settings = ("test_pairs", "test_lengths", "samples")

    def __init__(
        self,
        pairs: tuple[int, ...] = (4, 8, 16),
        length: int = 64,
        vocab: int = 128,
        test_pairs: tuple[int, ...] = (),
        test_lengths: tuple[int, ...] = (),
        power: float = 0.01,
        filler: Literal["blank", "random"] = "blank",
        samples: int = 128,
    ) -> None:
        self.pairs, self.length, self.vocab, self.samples = tuple(pairs), length, vocab, samples
        self.test_pairs, self.test_lengths = tuple(test_pairs) or self.pairs, tuple(test_lengths)
        self.test_lengths = self.test_lengths or (length, 2 * length, 4 * length)
        self.power, self.filler = power, filler
        every = (*self.pairs, *self.test_pairs)
        refuse(
            (not every or min(every) < 1 or samples < 1, "mqar needs pairs and samples of at least 1."),
            (power <= 0, "mqar's power must be above 0; 1 spreads the questions evenly."),
        )
        room, keys = min(length // 2, *(n // 2 for n in self.test_lengths)) // 2, vocab // 2 - 1
        refuse(
            (max(every) > room, f"mqar asks {max(every)} pairs: every length must be at least {4 * max(every)}."),
            (max(every) > keys, f"mqar asks {max(every)} pairs: vocab must be at least {2 * max(every) + 2}."),
        )
        self.values = vocab // 2  # the first value; keys are 1, ..., values - 1

    def lesson(self, draws: Random, progress: float) -> Where:
        pairs = draws.choice(self.pairs)
        return {"pairs": pairs, "length": length_of_lesson(draws, progress, 4 * pairs, self.length)}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of pairs at every length."""
        lengths, every = (self.test_lengths, self.test_pairs) if split == "test" else ((self.length,), self.pairs)
        yield from ({"pairs": pairs, "length": length} for length in lengths for pairs in every)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        pairs, length = where["pairs"], where["length"]
        keys = draws.sample(range(1, self.values), pairs)
        values = draws.sample(range(self.values, self.vocab), pairs)
        tokens = [token for pair in zip(keys, values, strict=True) for token in pair]
        tokens += self._filler(draws, set(keys), length - 2 * pairs)
        targets = [IGNORE] * length
        for key, value, gap in zip(keys, values, self._gaps(draws, pairs, length // 2 - pairs), strict=True):
            tokens[2 * (pairs + gap)], targets[2 * (pairs + gap)] = key, value
        return SymbolText(tokens, targets)

    def _filler(self, draws: Random, keys: set[int], count: int) -> list[int]:
        """Symbols between the questions; a key of the text among them would be an unmarked question."""
        if self.filler == "blank":
            return [BLANK] * count
        others = [token for token in range(1, self.vocab) if token not in keys]
        return draws.choices(others, k=count)

    def _gaps(self, draws: Random, pairs: int, space: int) -> list[int]:
        """Different slots of `space`, drawn with chances proportional to (slot + 1)^(power - 1), in random order."""
        # The smallest of exponential times with these rates come in just that order (Efraimidis and Spirakis 2006).
        times = [-math.log(1.0 - draws.random()) * (slot + 1) ** (1 - self.power) for slot in range(space)]
        slots = sorted(range(space), key=times.__getitem__)[:pairs]
        draws.shuffle(slots)  # as drawn, the first pairs would be asked first
        return slots

    def symbol(self, token: int) -> str:
        return "." if token == BLANK else f"k{token}" if token < self.values else f"v{token - self.values}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The pair at the beginning."""
        first = list(tokens).index(tokens[place])
        return [first, first + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value, or one of the text; the last one; the last one whose key has not been asked yet."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.vocab - self.values)),
            "floor: any value of the text": self.guess(lambda where: 1 / where["pairs"]),
            "floor: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.values, self.vocab)),
            "cheat: last value not asked yet": self.cheat(self._unasked),
        }

    def _unasked(self, tokens: Sequence[int], place: int) -> int:
        """The value of the last pair whose key has not come again before `place`: who strikes out, but reads no question."""
        times, said = Counter(tokens[:place]), self.values
        for key, value in zip(tokens[0:place:2], tokens[1:place:2], strict=False):
            if not 0 < key < self.values <= value:
                break  # the pairs stand at the beginning
            said = value if times[key] == 1 else said
        return said
