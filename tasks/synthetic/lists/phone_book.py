"""Phone book (Jelassi et al. 2024, arXiv 2402.01032): many names and numbers; whose name is asked, whose number is said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, refuse
from tasks.task import IGNORE

ASK, DIGITS, FIRST = 0, 1, 11  # the question mark, the first digit, the first of the first names
TEN = 10


class PhoneBook(SymbolTask):
    """Phone book: the number of one name among many, digit by digit, by the number of entries.

    An entry is a first name, a surname and `digits` digits. The names of one text are drawn from so few first names and
    surnames that either alone stands in several entries: only both together tell whose number it is. Behind a question mark
    stands a name of the book, and its number is asked, every digit behind the one before. Training asks `questions` names
    of a text, the test one. The paper asks pretrained models, in text. Of `vocab` symbols one is the question mark and ten
    are digits; the others are first names and surnames, half each.

    >>> print(aligned(create("phone-book", entries=(2,), digits=3, vocab=17)))
    f0 s0 1 4 7 f1 s0 2 3 7 ? f1 s0 2 3
    _  _  _ _ _ _  _  _ _ _ _ _  2  3 7
    """

    name = "phone-book"
    exam_settings = ("test_entries", "samples")

    def __init__(
        self,
        entries: tuple[int, ...] = (8, 16),
        digits: int = 4,
        vocab: int = 75,
        questions: int = 4,
        test_entries: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.entries, self.digits, self.vocab = tuple(entries), digits, vocab
        self.questions, self.samples = questions, samples
        self.test_entries = tuple(test_entries) or (*self.entries, 2 * max(self.entries, default=1))
        self.surnames = FIRST + (vocab - FIRST) // 2  # the first surname
        every = (*self.entries, *self.test_entries)
        refuse(
            (
                not self.entries or min(every) < 2 or digits < 1 or questions < 1 or samples < 1,
                "phone-book needs entries of at least 2, and digits, questions and samples of at least 1.",
            ),
            (
                _parts(max(every)) > self.surnames - FIRST,
                f"phone-book with {max(every)} entries needs a vocab of at least {FIRST + 2 * _parts(max(every))}.",
            ),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"entries": draws.choice(self.entries), "asked": "several"}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of entries."""
        every = self.test_entries if split == "test" else self.entries
        yield from ({"entries": entries, "asked": "one"} for entries in every)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        entries = where["entries"]
        parts = _parts(entries)
        first = draws.sample(range(FIRST, self.surnames), parts)
        last = draws.sample(range(self.surnames, self.vocab), parts)
        names = draws.sample([(one, other) for one in first for other in last], entries)
        numbers = [[DIGITS + draws.randrange(TEN) for _ in range(self.digits)] for _ in names]
        tokens = [token for name, number in zip(names, numbers, strict=True) for token in (*name, *number)]
        targets = [IGNORE] * len(tokens)
        count = 1 if where["asked"] == "one" else min(self.questions, entries)
        for entry in draws.sample(range(entries), count):
            tokens += [ASK, *names[entry], *numbers[entry][:-1]]
            targets += [IGNORE, IGNORE, *numbers[entry]]
        return SymbolText(tokens, targets)

    def symbol(self, token: int) -> str:
        if token == ASK:
            return "?"
        if token < FIRST:
            return str(token - DIGITS)
        return f"f{token - FIRST}" if token < self.surnames else f"s{token - self.surnames}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The name in the book, and the digit behind it that is asked."""
        name, asked = self._asked(tokens, place)
        begin = next(i for i in self._book(tokens) if tuple(tokens[i : i + 2]) == name)
        return [begin, begin + 1, begin + 2 + asked]

    def readers(self) -> dict[str, Reader]:
        """Guessing a digit; the last number; the last that begins as what was said; the last of one half of the name."""
        return {
            "floor: uniform digits": self.guess(lambda where: 1 / TEN),
            "floor: last number": self.cheat(self._last),
            "cheat: last number that begins so": self.cheat(lambda tokens, place: self._of(tokens, place, ())),
            "cheat: last number of the first name": self.cheat(lambda tokens, place: self._of(tokens, place, (0,))),
            "cheat: last number of the surname": self.cheat(lambda tokens, place: self._of(tokens, place, (1,))),
        }

    def _book(self, tokens: Sequence[int]) -> range:
        """Where the entries begin."""
        return range(0, list(tokens).index(ASK), 2 + self.digits)

    def _asked(self, tokens: Sequence[int], place: int) -> tuple[tuple[int, int], int]:
        """The name that a place asks for, and which of its digits."""
        begin = next(i for i in range(place, -1, -1) if tokens[i] == ASK)
        return (tokens[begin + 1], tokens[begin + 2]), place - begin - 2

    def _last(self, tokens: Sequence[int], place: int) -> int:
        return tokens[self._book(tokens)[-1] + 2 + self._asked(tokens, place)[1]]

    def _of(self, tokens: Sequence[int], place: int, parts: Sequence[int]) -> int:
        """The asked digit of the last entry that has these parts of the name, and the digits that were said before."""
        name, asked = self._asked(tokens, place)
        said = list(tokens[place - asked + 1 : place + 1])
        fitting = [i for i in self._book(tokens) if all(tokens[i + part] == name[part] for part in parts)]
        agreeing = [i for i in fitting if list(tokens[i + 2 : i + 2 + asked]) == said]
        return tokens[(agreeing or fitting)[-1] + 2 + asked]


def _parts(entries: int) -> int:
    """How many first names, and surnames, a book of so many entries has: either stands in about two of them or more."""
    return max(2, math.ceil(math.sqrt(2 * entries)))
