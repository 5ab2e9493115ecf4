"""What the six tasks share: one length, a training set of so many examples, and 1,280 test texts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tasks.rng import stream
from tasks.synthetic.symbol_task import SymbolTask, Where, refuse
from tasks.task import Batch


class MadTask(SymbolTask):
    """Training goes over `examples` texts of one `length` again and again; 0 means fresh texts without end.

    Every seed has its own training set. The loss is on what is asked. `test_lengths` is the length alone by default.
    """

    def __init__(
        self, vocab: int, length: int, examples: int, test_lengths: tuple[int, ...], samples: int, shortest: int
    ) -> None:
        self.vocab, self.length, self.examples, self.samples = vocab, length, examples, samples
        self.test_lengths = tuple(test_lengths) or (length,)
        refuse(
            (examples < 0 or samples < 1, f"{self.name} needs at least 0 examples (0: no limit) and 1 sample."),
            (
                min(length, *self.test_lengths) < shortest,
                f"{self.name} under these settings needs lengths of at least {shortest}.",
            ),
        )

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Examples drawn with replacement from the seed's training set."""
        if not self.examples:
            return super().training(seed, step, progress, tokens)
        picks, where = stream(self.name, "picks", seed, step), self.lesson(Random(0), progress)
        return self.batch(lambda: stream(self.name, "example", seed, picks.randrange(self.examples)), where, tokens)

    def lesson(self, draws: Random, progress: float) -> Where:
        return self.cell(self.length)

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each length."""
        yield from map(self.cell, self.test_lengths if split == "test" else (self.length,))

    def cell(self, length: int) -> Where:
        """The settings of a text."""
        return {"vocab": self.vocab, "length": length}
