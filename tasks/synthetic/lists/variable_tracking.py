"""Variable tracking: a variable is given a value, others are copied from it; what does the last of them hold?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, last_of, length_of_lesson, refuse
from tasks.task import IGNORE

BLANK, ASK, NAMES = 0, 1, 2  # the blank, the question mark, the first variable


class VariableTracking(SymbolTask):
    """Variable tracking: the value of a variable that was copied from others, by number of chains, of copies, and length.

    A statement is a variable and what it is given: a value at the head of a chain, then `hops` times the variable before
    it. The statements of `chains` chains, whose values and variables all differ, lie among blanks, those of one chain in
    order. The test asks the last variable of a chain, `hops` copies from its value; training asks all variables of a text in
    random order. RULER (Hsieh et al. 2024, arXiv 2404.06654) asks the other way round for all variables of a value, in
    prose, with 1 chain and 4 copies; where answers are given one by one, each is one look-up away from the one before. Of
    `vocab` symbols a blank and a question mark are taken; the others are variables and values, half each.

    >>> print(aligned(create("variable-tracking", chains=(2,), hops=(1,), length=16, vocab=14)))
    . . x3 v0 x1 x3 . . . x4 v5 x2 x4 . ? x2
    _ _ _  _  _  _  _ _ _ _  _  _  _  _ _ v5
    """

    name = "variable-tracking"
    exam_settings = ("test_hops", "test_lengths", "samples")

    def __init__(
        self,
        chains: tuple[int, ...] = (4,),
        hops: tuple[int, ...] = (1, 2, 4),
        length: int = 96,
        vocab: int = 130,
        test_hops: tuple[int, ...] = (),
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.chains, self.hops, self.length, self.vocab, self.samples = (
            tuple(chains),
            tuple(hops),
            length,
            vocab,
            samples,
        )
        self.test_hops = tuple(test_hops) or self.hops
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length)
        self.values = NAMES + (vocab - NAMES) // 2  # the first value
        every = (*self.hops, *self.test_hops)
        refuse(
            (not self.chains or min(self.chains) < 2, "variable-tracking needs chains of at least 2."),
            (not self.hops or min(every) < 1 or samples < 1, "variable-tracking needs hops and samples of at least 1."),
        )
        most, longest = max(self.chains), max(self.chains) * (1 + max(every))
        taught = 4 * most * (1 + max(self.hops))
        refuse(
            (length < taught, f"variable-tracking trains on so many statements at a length of at least {taught}."),
            (
                min(self.test_lengths) < 2 * longest + 2,
                f"variable-tracking asks so many statements at test_lengths of at least {2 * longest + 2}.",
            ),
            (
                longest > self.values - NAMES,
                f"variable-tracking with {longest} variables needs a vocab of at least {2 * longest + NAMES}.",
            ),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        chains, hops = draws.choice(self.chains), draws.choice(self.hops)
        length = length_of_lesson(draws, progress, 4 * chains * (1 + hops), self.length)
        return {"chains": chains, "hops": hops, "length": length, "asked": "all"}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of chains and of copies at every length."""
        test = split == "test"
        for length in self.test_lengths if test else (self.length,):
            for chains in self.chains:
                for hops in self.test_hops if test else self.hops:
                    yield {"chains": chains, "hops": hops, "length": length, "asked": "last"}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        chains, size = where["chains"], 1 + where["hops"]
        names = draws.sample(range(NAMES, self.values), chains * size)
        values = draws.sample(range(self.values, self.vocab), chains)
        own = [names[size * chain : size * (chain + 1)] for chain in range(chains)]
        asked = draws.sample(names, len(names)) if where["asked"] == "all" else [draws.choice(own)[-1]]
        order = [chain for chain in range(chains) for _ in range(size)]
        order += [-1] * (where["length"] - 2 * len(asked) - 2 * len(names))
        draws.shuffle(order)
        tokens, given = [], [0] * chains
        for chain in order:
            if chain < 0:
                tokens.append(BLANK)
                continue
            step = given[chain]
            tokens += [own[chain][step], own[chain][step - 1] if step else values[chain]]
            given[chain] += 1
        holds = {name: value for chain, value in zip(own, values, strict=True) for name in chain}
        targets = [IGNORE] * len(tokens)
        for name in asked:
            tokens, targets = [*tokens, ASK, name], [*targets, IGNORE, holds[name]]
        return SymbolText(tokens, targets)

    def symbol(self, token: int) -> str:
        named = {BLANK: ".", ASK: "?"}
        return named.get(token) or (f"x{token - NAMES}" if token < self.values else f"v{token - self.values}")

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The statements from the variable back to its value."""
        told = _statements(tokens)
        found, name = [], tokens[place]
        while name < self.values:
            found = [told[name], told[name] + 1, *found]
            name = tokens[told[name] + 1]
        return found

    def readers(self) -> dict[str, Reader]:
        """Guessing any value, or one of the text; the last one, the first one, the nearest before the variable.

        Who follows one copy and takes the nearest value before is right where one copy is all: a reference.
        """
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.vocab - self.values)),
            "floor: any value of the text": self.guess(lambda where: 1 / where["chains"]),
            "floor: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.values, self.vocab)),
            "cheat: first value": self.cheat(lambda tokens, place: self._first(tokens)),
            "cheat: nearest value before the variable": self.cheat(
                lambda tokens, place: self._before(tokens, place, 0)
            ),
            "reference: one copy followed": self.cheat(lambda tokens, place: self._before(tokens, place, 1)),
        }

    def _first(self, tokens: Sequence[int]) -> int:
        return next(token for token in tokens if token >= self.values)

    def _before(self, tokens: Sequence[int], place: int, copies: int) -> int:
        """The value that stands last before the statement of the asked variable, or of the one it was copied from."""
        told, name = _statements(tokens), tokens[place]
        for _ in range(copies):
            source = tokens[told[name] + 1]
            name = source if source < self.values else name
        return last_of(tokens, told[name] + 1, self.values, self.vocab)


def _statements(tokens: Sequence[int]) -> dict[int, int]:
    """Where the statement of each variable begins."""
    found, place = {}, 0
    while tokens[place] != ASK:
        if tokens[place] != BLANK:
            found[tokens[place]] = place
            place += 1
        place += 1
    return found
