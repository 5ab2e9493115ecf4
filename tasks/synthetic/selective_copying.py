"""Selective copying (Gu and Dao 2023, arXiv 2312.00752): a few symbols strewn over noise, said again at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import (
    SymbolTask,
    SymbolText,
    Where,
    commonest_of,
    last_of,
    length_of_lesson,
    nearest_to,
    refuse,
)
from tasks.task import IGNORE

NOISE = 0


class SelectiveCopying(SymbolTask):
    """Selective copying: the symbols that lay anywhere in noise, in their order, by length.

    A text of `length` symbols: `copied` data symbols at random places among noise, then as many markers, at which they
    are asked in order. Of `vocab` symbols one is noise and one the marker. The paper's sizes: length 4096, copied 16,
    vocab 16. The test is at `test_lengths`, by default 1, 2, 4 and 8 times the length.

    >>> print(aligned(create("selective-copying", length=12, copied=3, vocab=8)))
    s4 . . s3 . . . s6 . ?  ?  ?
    _  _ _ _  _ _ _ _  _ s4 s3 s6
    """

    name = "selective-copying"

    def __init__(
        self,
        length: int = 64,
        copied: int = 8,
        vocab: int = 16,
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.length, self.copied, self.vocab, self.samples = length, copied, vocab, samples
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        self.marker = vocab - 1
        shortest = min(length, *self.test_lengths)
        refuse(
            (copied < 1 or samples < 1, "selective-copying needs copied and samples of at least 1."),
            (vocab < 4, "selective-copying needs a vocab of at least 4: noise, marker and two symbols."),
            (shortest < 2 * copied, f"selective-copying with copied={copied} needs lengths of at least {2 * copied}."),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"copied": self.copied, "length": length_of_lesson(draws, progress, 2 * self.copied, self.length)}

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each length."""
        for length in self.test_lengths if split == "test" else (self.length,):
            yield {"copied": self.copied, "length": length}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        copied, context = where["copied"], where["length"] - where["copied"]
        data = [draws.randrange(1, self.marker) for _ in range(copied)]
        tokens = [NOISE] * context + [self.marker] * copied
        for place, token in zip(sorted(draws.sample(range(context), copied)), data, strict=True):
            tokens[place] = token
        return SymbolText(tokens, [IGNORE] * context + data)

    def symbol(self, token: int) -> str:
        return "." if token == NOISE else "?" if token == self.marker else f"s{token}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The data symbol whose turn it is."""
        data = [i for i, token in enumerate(tokens) if NOISE < token < self.marker]
        return [data[list(tokens[: place + 1]).count(self.marker) - 1]]

    def readers(self) -> dict[str, Reader]:
        """Guessing any symbol; the last one; the commonest one; the one nearest to where the asked one lies on average."""
        return {
            "floor: uniform symbols": self.guess(lambda where: 1 / (self.marker - 1)),
            "floor: last symbol": self.cheat(lambda tokens, place: last_of(tokens, place, 1, self.marker)),
            "cheat: commonest symbol": self.cheat(lambda tokens, place: commonest_of(tokens, place, 1, self.marker)),
            "cheat: symbol at the usual place": self.cheat(self._at_the_usual_place),
        }

    def _at_the_usual_place(self, tokens: Sequence[int], place: int) -> int:
        """Of `copied` places drawn among `context`, the i-th (from 1) is i (context + 1) / (copied + 1) on average, less 1."""
        context = len(tokens) - self.copied
        usual = (place - context + 1) * (context + 1) / (self.copied + 1) - 1
        return nearest_to(tokens, usual, 1, self.marker)
