"""State tracking (Merrill, Petty and Sabharwal 2024, arXiv 2404.08819): the product of a word in a group, at every prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations, permutations
from random import Random
from typing import Literal

import numpy as np
import torch

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, length_of_lesson, refuse
from tasks.task import Answers, EvaluationBatch, Measurement, doubling

SHORTEST = 8  # shorter words are too few to be split
SWAPPED = ("s3", "s4", "s5")  # the groups that swaps of neighbours lead through


class StateTracking(SymbolTask):
    """State tracking: where a word of a group has led to, asked after every symbol, by length.

    `group` is parity, addition modulo `modulus`, the permutations of 3 (s3), 4 (s4) or 5 (s5) things, the even ones of 5
    (a5), or those of 4 with a wheel of 5 beside them (a4xz5): of the groups of 60 elements a5 is the one that no product
    of simpler ones gives, a4xz5 lies between, and addition modulo 60 is the easiest. A symbol is an element and the
    answer the product so far, the newest applied last. `inputs="swaps"` gives swaps of neighbours alone. Beside
    the accuracy over all prefixes stand `final_accuracy`, after the last symbol, and at the longest test length
    `position_accuracy`, in bins that double. Training takes lengths up to `length`, the test `test_lengths`, by default 1,
    2, 4 and 8 times as long. No memory of a few symbols suffices.

    >>> print(aligned(create("state-tracking", group="s3", length=10)))
    312 123 321 213 312 231 132 132 321 213
    312 312 132 231 123 231 321 231 213 123
    """

    name = "state-tracking"

    def __init__(
        self,
        group: Literal["parity", "modular-addition", "s3", "s4", "s5", "a5", "a4xz5"] = "parity",
        modulus: int = 5,
        inputs: Literal["all", "swaps"] = "all",
        length: int = 32,
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.group, self.modulus, self.length, self.samples = (
            group,
            2 if group == "parity" else modulus,
            length,
            samples,
        )
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        refuse(
            (
                self.modulus < 2 or samples < 1,
                "state-tracking needs a modulus of at least 2 and samples of at least 1.",
            ),
            (
                inputs == "swaps" and group not in SWAPPED,
                "Only the groups s3, s4 and s5 of state-tracking have swaps.",
            ),
            (min(length, *self.test_lengths) < SHORTEST, f"state-tracking needs lengths of at least {SHORTEST}."),
        )
        self.elements = _permutations(group) or list(range(self.modulus))
        self.vocab = len(self.elements)
        every = range(self.vocab)
        self.inputs = [i for i in every if _is_neighbour_swap(self.elements[i])] if inputs == "swaps" else list(every)

    @cached_property
    def product(self) -> list[list[int]]:
        """product[a][b] is the element that applies b after a."""
        if not isinstance(self.elements[0], tuple):
            return [[(a + b) % self.modulus for b in self.elements] for a in self.elements]
        place = {p: i for i, p in enumerate(self.elements)}
        return [[place[tuple(b[i] for i in a)] for b in self.elements] for a in self.elements]

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"group": self.group, "length": length_of_lesson(draws, progress, SHORTEST, self.length)}

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each length."""
        for length in self.test_lengths if split == "test" else (self.length,):
            yield {"group": self.group, "length": length}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        tokens = [draws.choice(self.inputs) for _ in range(where["length"])]
        state, targets = 0, []  # element 0 is the one that changes nothing
        for token in tokens:
            state = self.product[state][token]
            targets.append(state)
        return SymbolText(tokens, targets)

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterator[Measurement]:
        """Every prefix, whole words, and the whole word's product alone; of the longest words also by place."""
        yield from super().mark(exam, answers)
        where, hits = exam.batch.where, answers.hit.double()
        final = hits[:, -1]
        yield Measurement("final_accuracy", final.mean().item(), len(final), where)
        if where["length"] != max(self.test_lengths):
            return
        for start, end in doubling(where["length"]):
            part = hits[:, start:end]
            place = {"group": self.group, "from": start, "to": min(end, where["length"])}
            yield Measurement("position_accuracy", part.mean().item(), part.numel(), place)

    def symbol(self, token: int) -> str:
        element = self.elements[token]
        return "".join(str(i + 1) for i in element) if isinstance(element, tuple) else str(element)

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """Everything so far."""
        return list(range(place + 1))

    def readers(self) -> dict[str, Reader]:
        """The commonest product at each place, known from the rule alone; and the last one or two symbols taken for all."""
        return {
            "floor: commonest product": self._commonest,
            "floor: last symbol": self.cheat(lambda tokens, place: tokens[place]),
            "floor: last two symbols": self.cheat(self._last_two),
        }

    def _last_two(self, tokens: Sequence[int], place: int) -> int:
        return self.product[tokens[place - 1]][tokens[place]] if place else tokens[0]

    def _commonest(self, exam: EvaluationBatch) -> Answers:
        """Always the most probable product: its chance at each place, by the walk's own distribution."""
        step = np.zeros((self.vocab, self.vocab))
        for state in range(self.vocab):
            for token in self.inputs:
                step[state, self.product[state][token]] += 1 / len(self.inputs)
        reached, chances = np.eye(self.vocab)[0], []
        for _ in range(exam.batch.tokens.shape[1]):
            reached = reached @ step
            chances.append(reached.max())
        hit = torch.tensor(chances).double().expand(exam.batch.targets.shape)
        return Answers(torch.zeros(hit.shape), hit)


def _permutations(group: str) -> list[tuple[int, ...]]:
    """The elements of a group as permutations, the one that changes nothing first; empty for sums."""
    if group in SWAPPED:
        return list(permutations(range(int(group[1]))))
    if group == "a5":
        return [p for p in permutations(range(5)) if _is_even(p)]
    if group == "a4xz5":
        wheel = [tuple(4 + (place + turn) % 5 for place in range(5)) for turn in range(5)]
        return [p + turned for p in permutations(range(4)) if _is_even(p) for turned in wheel]
    return []


def _is_even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in combinations(permutation, 2)) % 2 == 0


def _is_neighbour_swap(permutation: tuple[int, ...]) -> bool:
    moved = [i for i, image in enumerate(permutation) if i != image]
    return len(moved) == 2 and moved[1] == moved[0] + 1
