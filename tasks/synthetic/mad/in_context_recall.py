"""MAD's in-context recall: keys and values in turn; where a key comes again, its value is asked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE


class InContextRecall(MadTask):
    """MAD in-context recall: the value of every key that comes again, by vocabulary, length and training examples.

    Half of `vocab` are keys, half values; each text binds its keys anew. Published axes: vocab 16 to 128, length 128 to
    1024, examples 12800 down to 800.

    >>> print(aligned(create("mad-in-context-recall", length=16, vocab=8)))
    k1 v2 k0 v3 k3 v3 k0 v3 k3 v3 k3 v3 k1 v2 k1 v2
    _  _  _  _  _  _  v3 _  v3 _  v3 _  v2 _  v2 _
    """

    name = "mad-in-context-recall"

    def __init__(
        self,
        vocab: int = 16,
        length: int = 128,
        examples: int = 12800,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        super().__init__(vocab, length, examples, test_lengths, samples, shortest=4)
        self.noise_symbols, self.noise = 0, 0.0
        self._divide()

    def _divide(self) -> None:
        """Keys are 0, ..., values - 1; values end at `first_noise`."""
        self.first_noise = self.vocab - self.noise_symbols
        self.values = self.first_noise // 2
        refuse(
            (self.values < 2, f"{self.name} needs a vocab of at least {4 + self.noise_symbols}: two keys, two values."),
            (any(n % 2 for n in (self.length, *self.test_lengths)), f"{self.name} needs even lengths."),
        )

    def draw(self, draws: Random, where: Where) -> SymbolText:
        bound: dict[int, int] = {}
        tokens, targets = [], []
        places = where["length"] // 2
        certain = draws.randrange(places - 1)  # never noise, so that there is something to ask at the end
        for place in range(places):
            last = place == places - 1
            if self.noise and not last and place != certain and draws.random() < self.noise:
                tokens += [draws.randrange(self.first_noise, self.vocab) for _ in range(2)]
                targets += [IGNORE, IGNORE]
                continue
            key = draws.choice(list(bound)) if last else draws.randrange(self.values)
            targets += [bound.get(key, IGNORE), IGNORE]
            if key not in bound:
                bound[key] = draws.randrange(self.values, self.first_noise)
            tokens += [key, bound[key]]
        return SymbolText(tokens, targets)

    def symbol(self, token: int) -> str:
        if token >= self.first_noise:
            return f"n{token - self.first_noise}"
        return f"k{token}" if token < self.values else f"v{token - self.values}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The key's first pair."""
        first = list(tokens).index(tokens[place])
        return [first, first + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value, saying the last one, and saying the commonest one so far: nothing that knows the key."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.first_noise - self.values)),
            "floor: last value": self.cheat(
                lambda tokens, place: last_of(tokens, place, self.values, self.first_noise)
            ),
            "cheat: commonest value so far": self.cheat(
                lambda tokens, place: commonest_of(tokens, place, self.values, self.first_noise)
            ),
        }
