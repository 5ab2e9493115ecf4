"""Flip-flop language modelling (Liu et al. 2023, arXiv 2306.00946): what was written last, whatever is said in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, commonest_of, last_of, length_of_lesson, refuse
from tasks.task import IGNORE

WRITE, SKIP, READ, FIRST = 0, 1, 2, 3  # the instructions, then the values
SHORTEST = 16  # shorter texts are too few to be split


class FlipFlop(SymbolTask):
    """Flip-flop: the value that was written last, at every reading, by length and by the share of instructions to ignore.

    A text is instructions w (write), i (ignore) and r (read), each followed by a value; it begins with a writing and
    ends with a reading, and behind every r the value of the last w is asked. A share `ignored` of the instructions says
    i, the others w or r alike. Training is at `ignored` and lengths up to `length`; the test asks `test_ignored` too,
    fewer (dense) and more (sparse), as in the paper, whose sizes are length 512, ignored 0.8 against 0.1 and 0.98. One
    forgotten value is an error for the rest of the text: attention glitches here, a recurrence need not.

    >>> print(aligned(create("flip-flop", length=20, ignored=0.6)))
    w 0 i 1 r 0 r 0 r 0 w 1 r 1 w 1 r 1 r 1
    _ _ _ _ 0 _ 0 _ 0 _ _ _ 1 _ _ _ 1 _ 1 _
    """

    name = "flip-flop"
    exam_settings = ("test_ignored", "test_lengths", "samples")

    def __init__(
        self,
        length: int = 64,
        ignored: float = 0.8,
        values: int = 2,
        test_ignored: tuple[float, ...] = (0.1, 0.8, 0.98),
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.length, self.ignored, self.values, self.samples = length, ignored, values, samples
        self.test_ignored = tuple(test_ignored) or (ignored,)
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        self.vocab = FIRST + values
        every = (length, *self.test_lengths)
        refuse(
            (values < 2 or samples < 1, "flip-flop needs at least 2 values and samples of at least 1."),
            (min(every) < SHORTEST, f"flip-flop needs lengths of at least {SHORTEST}."),
            (
                any(one % 2 for one in every),
                "flip-flop needs even lengths: an instruction and its value are two symbols.",
            ),
            (
                not all(0 <= share < 1 for share in (ignored, *self.test_ignored)),
                "flip-flop's shares of ignored instructions lie from 0 to below 1.",
            ),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        length = length_of_lesson(draws, progress, SHORTEST, self.length)
        return {"ignored": self.ignored, "length": length}

    def cells(self, split: str) -> Iterator[Where]:
        """Every share of ignored instructions at every length; validation is as training was."""
        test = split == "test"
        for length in self.test_lengths if test else (self.length,):
            for share in self.test_ignored if test else (self.ignored,):
                yield {"ignored": share, "length": length}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        tokens: list[int] = []
        targets: list[int] = []
        held, count = FIRST, where["length"] // 2
        for number in range(count):
            said = self._instruction(draws, where["ignored"], number, count)
            value = held if said == READ else FIRST + draws.randrange(self.values)
            held = value if said == WRITE else held
            tokens += [said, value]
            targets += [value if said == READ else IGNORE, IGNORE]
        return SymbolText(tokens, targets)

    def _instruction(self, draws: Random, ignored: float, number: int, count: int) -> int:
        if number in (0, count - 1):
            return READ if number else WRITE
        return SKIP if draws.random() < ignored else draws.choice((WRITE, READ))

    def symbol(self, token: int) -> str:
        return "wir"[token] if token < FIRST else str(token - FIRST)

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The last writing."""
        last = max(i for i in range(0, place, 2) if tokens[i] == WRITE)
        return [last, last + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value; the last value of all, of the last reading, of the first writing; the commonest one."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / self.values),
            "cheat: last value": self.cheat(lambda tokens, place: last_of(tokens, place, FIRST, self.vocab)),
            "cheat: value of the last reading": self.cheat(lambda tokens, place: _behind(tokens, place, READ)),
            "cheat: first value": self.cheat(lambda tokens, place: tokens[1]),
            "cheat: commonest value": self.cheat(lambda tokens, place: commonest_of(tokens, place, FIRST, self.vocab)),
        }


def _behind(tokens: Sequence[int], place: int, instruction: int) -> int:
    """The value of the last such instruction before a place; of the text's first one where there is none."""
    return next((tokens[i + 1] for i in range(place - 2, -1, -2) if tokens[i] == instruction), tokens[1])
