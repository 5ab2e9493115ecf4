"""Recall by a key of two symbols, neither of which tells anything by itself: what a memory linear in them cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE

ASK, LEFT = 0, 1  # the question mark, and the first left symbol


class NonlinearRecall(SymbolTask):
    """Nonlinear recall: the value of a pair of symbols, where only both together tell it, by the size of the table.

    A text shows a table of `sides` times `sides` cells in random order, each as a left symbol, a right symbol and a value;
    then a question mark and one cell again, whose value is asked. Every left symbol has a hidden class, and so has every
    right one, each class equally often; the value is the sum of the two modulo `values` (exclusive or, for two), under
    new symbols in every text. So a value belongs to several keys, and the symbols of a key one by one leave all
    values equally likely: no sum of a part for the left and a part for the right is right. `table="random"` draws each
    cell by itself. Training asks `questions` cells of a text, the test one, at each of `test_sides`. Of `vocab` symbols one
    is the question mark; the others are left symbols, right symbols and values, a third each.

    >>> print(aligned(create("nonlinear-recall", sides=(2,), vocab=13)))
    a4 b2 v1 a3 b1 v1 a3 b2 v2 a4 b1 v2 ? a4 b1
    _  _  _  _  _  _  _  _  _  _  _  _  _ _  v2
    """

    name = "nonlinear-recall"
    exam_settings = ("test_sides", "samples")

    def __init__(
        self,
        sides: tuple[int, ...] = (2, 4),
        values: int = 2,
        vocab: int = 49,
        table: Literal["sum", "random"] = "sum",
        questions: int = 8,
        test_sides: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.sides, self.values, self.vocab, self.table = tuple(sides), values, vocab, table
        self.questions, self.samples = questions, samples
        self.test_sides = tuple(test_sides) or self.sides
        third = (vocab - LEFT) // 3
        self.right, self.first = LEFT + third, LEFT + 2 * third  # the first right symbol, and the first value
        every = (*self.sides, *self.test_sides)
        refuse(
            (
                not self.sides or values < 2 or samples < 1 or questions < 1,
                "nonlinear-recall needs sides, at least 2 values, and questions and samples of at least 1.",
            ),
            (
                any(side < values or side % values for side in every),
                f"nonlinear-recall with {values} values needs sides that are multiples of {values}.",
            ),
            (
                third < max(*every, values),
                f"nonlinear-recall with a side of {max(every)} needs a vocab of at least {3 * max(*every, values) + LEFT}.",
            ),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"side": draws.choice(self.sides), "asked": "several"}

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each side."""
        for side in self.test_sides if split == "test" else self.sides:
            yield {"side": side, "asked": "one"}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        side = where["side"]
        lefts = draws.sample(range(LEFT, self.right), side)
        rights = draws.sample(range(self.right, self.first), side)
        named = draws.sample(range(self.first, self.vocab), self.values)
        classes = [draws.sample([i % self.values for i in range(side)], side) for _ in range(2)]
        held = {}
        for i, left in enumerate(lefts):
            for j, right in enumerate(rights):
                value = classes[0][i] + classes[1][j] if self.table == "sum" else draws.randrange(self.values)
                held[left, right] = named[value % self.values]
        shown = draws.sample(list(held), len(held))
        tokens = [token for cell in shown for token in (*cell, held[cell])]
        targets = [IGNORE] * len(tokens)
        for cell in draws.sample(shown, 1 if where["asked"] == "one" else min(self.questions, len(shown))):
            tokens, targets = [*tokens, ASK, *cell], [*targets, IGNORE, IGNORE, held[cell]]
        return SymbolText(tokens, targets)

    def symbol(self, token: int) -> str:
        if token < self.right:
            return f"a{token}" if token else "?"
        return f"b{token - self.right}" if token < self.first else f"v{token - self.first}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The cell where it was shown."""
        first = next(i for i in range(0, place, 3) if tokens[i : i + 2] == tokens[place - 1 : place + 1])
        return [first, first + 1, first + 2]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value, or one of the text; the last and the commonest one; those of one half of the key."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.vocab - self.first)),
            "floor: any value of the text": self.guess(lambda where: 1 / self.values),
            "floor: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.first, self.vocab)),
            "cheat: commonest value": self.cheat(lambda t, place: commonest_of(t, place, self.first, self.vocab)),
            "cheat: last value of the left symbol": self.cheat(_of_half(0, _last)),
            "cheat: last value of the right symbol": self.cheat(_of_half(1, _last)),
            "cheat: commonest value of the left symbol": self.cheat(_of_half(0, _commonest)),
            "cheat: commonest value of the right symbol": self.cheat(_of_half(1, _commonest)),
        }


def _of_half(half: int, choice: Callable[[list[int]], int]) -> Callable[[list[int], int], int]:
    """Who looks one symbol of the key up, left (0) or right (1), and chooses among the values of all its cells."""

    def says(tokens: list[int], place: int) -> int:
        asked, end = tokens[place - 1 + half], tokens.index(ASK)
        return choice([tokens[i + 2] for i in range(0, end, 3) if tokens[i + half] == asked])

    return says


def _last(values: list[int]) -> int:
    return values[-1]


def _commonest(values: list[int]) -> int:
    return max(values, key=values.count)
