"""MAD's selective copying: symbols strewn among blanks, said again after a sign."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import SymbolText, Where, commonest_of, last_of, nearest_to, refuse
from tasks.task import IGNORE


class MadSelectiveCopying(MadTask):
    """MAD selective copying: the symbols that lay among blanks, in order, by how many beside the other axes.

    `copied` symbols, each after a random number of blanks; a sign; then blanks, at which the symbols are asked. Of `vocab`
    symbols one is the blank and one the sign. Published axes: copied 16 to 96, vocab 16 to 128, length 256 to 1024,
    examples 12800 down to 800.

    >>> print(aligned(create("mad-selective-copying", length=16, copied=4)))
    . . . . . . s9 s7 . s9 s8 ? .  .  .  .
    _ _ _ _ _ _ _  _  _ _  _  _ s9 s7 s9 s8
    """

    name = "mad-selective-copying"

    def __init__(
        self,
        vocab: int = 16,
        length: int = 256,
        copied: int = 16,
        examples: int = 12800,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        self.copied, self.sign, self.blank = copied, vocab - 1, vocab - 2
        refuse(
            (copied < 1, f"{self.name} needs copied to be at least 1."),
            (vocab < 4, f"{self.name} needs a vocab of at least 4: blank, sign and two symbols."),
        )
        super().__init__(vocab, length, examples, test_lengths, samples, shortest=2 * copied + 2)

    def cell(self, length: int) -> Where:
        return {"copied": self.copied, **super().cell(length)}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        copied = where["copied"]
        blanks = [0] * copied
        for _ in range(where["length"] - 2 * copied - 1):
            blanks[draws.randrange(copied)] += 1
        data, tokens = [draws.randrange(self.blank) for _ in range(copied)], []
        for token, before in zip(data, blanks, strict=True):
            tokens += [self.blank] * before + [token]
        targets = [IGNORE] * (len(tokens) + 1) + data
        return SymbolText(tokens + [self.sign] + [self.blank] * copied, targets)

    def symbol(self, token: int) -> str:
        return "." if token == self.blank else "?" if token == self.sign else f"s{token}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The symbol whose turn it is."""
        data = [i for i, token in enumerate(tokens) if token < self.blank]
        return [data[place - list(tokens).index(self.sign) - 1]]

    def readers(self) -> dict[str, Reader]:
        """Guessing any symbol; the last one; the commonest one; the one nearest to where the asked one lies on average."""
        return {
            "floor: uniform symbols": self.guess(lambda where: 1 / self.blank),
            "floor: last symbol": self.cheat(lambda tokens, place: last_of(tokens, place, 0, self.blank)),
            "cheat: commonest symbol": self.cheat(lambda tokens, place: commonest_of(tokens, place, 0, self.blank)),
            "cheat: symbol at the usual place": self.cheat(self._at_the_usual_place),
        }

    def _at_the_usual_place(self, tokens: Sequence[int], place: int) -> int:
        """Before each symbol stand as many blanks on average, so that the i-th (from 1) stands at i shares on average, less 1."""
        sign = len(tokens) - self.copied - 1
        return nearest_to(tokens[:sign], (place - sign) * sign / self.copied - 1, 0, self.blank)
