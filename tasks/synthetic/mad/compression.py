"""MAD's compression: random symbols, and after a sign all of them again, out of one state."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE


class Compression(MadTask):
    """MAD compression: a whole text of random symbols again after a sign, by vocabulary, length and examples.

    The published task decodes the vector at the sign with a network of its own. Here the model itself says the text
    after the sign, asked at signs alone, so that no answer shows: a recurrent model has nothing but its state then,
    while attention still sees the text. `length` counts the text and its first sign; as many signs less one follow. One
    of `vocab` symbols is the sign. Published axes: vocab 16 to 128, length 32 to 256, examples 12800 down to 800.

    >>> print(aligned(create("mad-compression", length=8)))
    s14 s5 s0 s7 s7 s2 s0 ? ?   ?  ?  ?  ?  ?  ?
    _   _  _  _  _  _  _  _ s14 s5 s0 s7 s7 s2 s0
    """

    name = "mad-compression"

    def __init__(
        self,
        vocab: int = 16,
        length: int = 32,
        examples: int = 12800,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        self.sign = vocab - 1
        refuse((vocab < 3, f"{self.name} needs a vocab of at least 3: the sign and two symbols."))
        super().__init__(vocab, length, examples, test_lengths, samples, shortest=2)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        data = [draws.randrange(self.sign) for _ in range(where["length"] - 1)]
        return SymbolText(data + [self.sign] * (len(data) + 1), [IGNORE] * (len(data) + 1) + data)

    def symbol(self, token: int) -> str:
        return "?" if token == self.sign else f"s{token}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The symbol at the same place of the text."""
        return [place - list(tokens).index(self.sign) - 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any symbol, saying the last one, and saying the commonest one."""
        return {
            "floor: uniform symbols": self.guess(lambda where: 1 / self.sign),
            "floor: last symbol": self.cheat(lambda tokens, place: last_of(tokens, place, 0, self.sign)),
            "cheat: commonest symbol": self.cheat(lambda tokens, place: commonest_of(tokens, place, 0, self.sign)),
        }
