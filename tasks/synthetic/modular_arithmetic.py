"""Modular arithmetic (Deletang et al. 2022, arXiv 2207.02098): the value of an expression, with brackets or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal, NamedTuple

import torch

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, length_of_lesson, refuse
from tasks.task import IGNORE, Answers, EvaluationBatch, Measurement

SHORTEST = 16  # shorter expressions are too few to be split
SIGNS = "+-*()=."


class Part(NamedTuple):
    """An expression in writing, its value, and the value at every place that closes a part of it."""

    tokens: list[int]
    value: int
    known: list[int]


class ModularArithmetic(SymbolTask):
    """Modular arithmetic: the value of sums, differences and products modulo a number, by length, with brackets or without.

    A text of `length` symbols is an expression and an equals sign, at which its value modulo `modulus` is asked; blanks
    stand before it where it is shorter. With `brackets` every operation has its own, nested at random: to know the value
    a reader must keep a stack. Without, products come before sums, and a state of two numbers suffices. `asked="every"`
    asks for the value of every part that closes as well, the bracket just closed or what stands so far, which teaches
    faster; the papers ask at the end. `final_accuracy` is of the whole expression alone. Training takes lengths up to `length`,
    the test `test_lengths`, by default 1, 2, 4 and 8 times as long.

    >>> print(aligned(create("modular-arithmetic", length=16, asked="every")))
    . . ( ( 3 - 3 ) + ( 3 * 4 ) ) =
    _ _ _ _ _ _ _ 0 _ _ _ _ _ 2 _ 2
    """

    name = "modular-arithmetic"

    def __init__(
        self,
        modulus: int = 5,
        brackets: bool = True,
        length: int = 32,
        asked: Literal["end", "every"] = "every",
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.modulus, self.brackets, self.length, self.asked = modulus, brackets, length, asked
        self.samples = samples
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        self.vocab = modulus + len(SIGNS)
        self.plus, self.minus, self.times, self.open, self.close, self.equals, self.blank = range(modulus, self.vocab)
        refuse(
            (
                modulus < 2 or samples < 1,
                "modular-arithmetic needs a modulus of at least 2 and samples of at least 1.",
            ),
            (min(length, *self.test_lengths) < SHORTEST, f"modular-arithmetic needs lengths of at least {SHORTEST}."),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return self._where(length_of_lesson(draws, progress, SHORTEST, self.length))

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each length."""
        yield from (self._where(length) for length in (self.test_lengths if split == "test" else (self.length,)))

    def _where(self, length: int) -> Where:
        return {"brackets": "with" if self.brackets else "without", "length": length}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        symbols = where["length"] - 1  # one is the equals sign
        whole = self._nested(draws, (symbols - 1) // 4) if self.brackets else self._plain(draws, (symbols - 1) // 2)
        before = [self.blank] * (symbols - len(whole.tokens))
        known = [*whole.known[:-1], IGNORE] if self.asked == "every" else [IGNORE] * len(whole.known)
        return SymbolText([*before, *whole.tokens, self.equals], [IGNORE] * len(before) + known + [whole.value])

    def _nested(self, draws: Random, operations: int) -> Part:
        """A bracket of so many operations, cut in two at random; a digit for none. It is 4 symbols an operation, and 1."""
        if not operations:
            digit = draws.randrange(self.modulus)
            return Part([digit], digit, [IGNORE])
        first = draws.randrange(operations)
        sign = draws.choice((self.plus, self.minus, self.times))
        left, right = self._nested(draws, first), self._nested(draws, operations - 1 - first)
        value = self._worth(left.value, sign, right.value)
        tokens = [self.open, *left.tokens, sign, *right.tokens, self.close]
        return Part(tokens, value, [IGNORE, *left.known, IGNORE, *right.known, value])

    def _plain(self, draws: Random, operations: int) -> Part:
        """So many operations in a row, products first; what stands so far is known at every digit."""
        digit = draws.randrange(self.modulus)
        total, term = 0, digit  # the terms that are closed, and the one that products may still change
        tokens, known = [digit], [digit]
        for _ in range(operations):
            sign, digit = draws.choice((self.plus, self.minus, self.times)), draws.randrange(self.modulus)
            if sign == self.times:
                term = term * digit % self.modulus
            else:
                total, term = (total + term) % self.modulus, digit if sign == self.plus else -digit
            tokens += [sign, digit]
            known += [IGNORE, (total + term) % self.modulus]
        return Part(tokens, known[-1], known)

    def _worth(self, left: int, sign: int, right: int) -> int:
        found = {self.plus: left + right, self.minus: left - right, self.times: left * right}[sign]
        return found % self.modulus

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterator[Measurement]:
        """Every part, whole texts, and the value of the whole expression alone."""
        yield from super().mark(exam, answers)
        final = answers.hit[:, -1].double()
        yield Measurement("final_accuracy", final.mean().item(), len(final), exam.batch.where)

    def symbol(self, token: int) -> str:
        return str(token) if token < self.modulus else SIGNS[token - self.modulus]

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The part that closes there: everything so far, or the bracket."""
        if tokens[place] != self.close:
            return list(range(place + 1))
        depth, first = 0, place
        while True:
            depth += {self.close: 1, self.open: -1}.get(tokens[first], 0)
            if not depth:
                return list(range(first, place + 1))
            first -= 1

    def readers(self) -> dict[str, Reader]:
        """Guessing; nought, the commonest value of products; the last digit, the last operation alone, the sum of all digits."""
        return {
            "floor: uniform results": self._blind,
            "floor: always 0": self.cheat(lambda tokens, place: 0),
            "cheat: last digit": self.cheat(lambda tokens, place: self._digits(tokens, place)[-1]),
            "cheat: last operation": self.cheat(self._last_operation),
            "cheat: digits added up": self.cheat(lambda t, place: sum(self._digits(t, place)) % self.modulus),
        }

    def _blind(self, exam: EvaluationBatch) -> Answers:
        hit = torch.full(exam.batch.targets.shape, 1 / self.modulus, dtype=torch.double)
        return Answers(torch.zeros(hit.shape), hit)

    def _digits(self, tokens: Sequence[int], place: int) -> list[int]:
        return [token for token in tokens[: place + 1] if token < self.modulus]

    def _last_operation(self, tokens: Sequence[int], place: int) -> int:
        """The value of the last digit, sign, digit; of the last digit where there is none."""
        for i in range(place - 2, -1, -1):
            left, sign, right = tokens[i : i + 3]
            if left < self.modulus and right < self.modulus:
                return self._worth(left, sign, right)
        return self._digits(tokens, place)[-1]
