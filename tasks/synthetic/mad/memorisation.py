"""MAD's memorisation: facts that no text tells, to be learned into the weights."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.rng import stream
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import SymbolText, Where, refuse
from tasks.task import IGNORE


class Memorisation(MadTask):
    """MAD memorisation: the value of a key, the same in all texts and never shown in one, by number of facts.

    A text is keys, each followed by a sign at which its value is asked. One of `vocab` symbols is the sign; the others
    are keys and values, half each, joined once and for all. Training and evaluations draw from the same facts in different texts;
    of many facts few examples teach only some (256 texts of 16 keys: nearly all of 127, about 63 % of 4095).
    Published axis: vocab 256 to 8192; 256 examples of length 32.

    >>> print(aligned(create("mad-memorisation", length=12, vocab=16)))
    k5 ?  k5 ?  k3 ?  k2 ?  k6 ?  k0 ?
    _  v1 _  v1 _  v7 _  v0 _  v2 _  v3
    """

    name = "mad-memorisation"

    def __init__(
        self,
        vocab: int = 256,
        length: int = 32,
        examples: int = 256,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        self.sign = vocab - 1
        self.values = self.sign // 2
        super().__init__(vocab, length, examples, test_lengths, samples, shortest=2)
        refuse(
            (self.values < 2, f"{self.name} needs a vocab of at least 5: the sign, two keys and two values."),
            (any(n % 2 for n in (length, *self.test_lengths)), f"{self.name} needs even lengths."),
        )
        self.facts = stream(self.name, "facts", vocab).sample(range(self.values, self.sign), self.values)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        keys = [draws.randrange(self.values) for _ in range(where["length"] // 2)]
        tokens = [token for key in keys for token in (key, self.sign)]
        return SymbolText(tokens, [target for key in keys for target in (IGNORE, self.facts[key])])

    def symbol(self, token: int) -> str:
        return "?" if token == self.sign else f"k{token}" if token < self.values else f"v{token - self.values}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The key alone: the fact stands nowhere."""
        return [place - 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value; the best that a text itself allows."""
        return {"floor: uniform values": self.guess(lambda where: 1 / len(self.facts))}
