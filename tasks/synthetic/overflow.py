"""Overflow: a stream of facts that is longer than a memory holds; what is still known of it, by age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE

ASK, KEYS = 0, 1  # the question mark, and the first key


class Overflow(SymbolTask):
    """Overflow: the value of a key from a long stream of facts, by the number of facts and by the fact's age.

    A text is `facts` keys and values in turn, all keys different; then a question mark and a key, whose value is asked.
    `age` counts facts back from the question: 1 is the newest. A memory that only adds blurs at every age once it is
    full; one that forgets keeps the recent and loses the old. Training asks `questions` keys of a text, of any age; the
    test asks `test_facts` at each of `ages` that the stream reaches, so streams may be longer than any that was trained
    on. Of `vocab` symbols one is the question mark; the others are keys and values, half each.

    >>> print(aligned(create("overflow", facts=(4,), ages=(2,), vocab=17)))
    k4 v0 k5 v2 k2 v0 k3 v5 ? k2
    _  _  _  _  _  _  _  _  _ v0
    """

    name = "overflow"
    exam_settings = ("test_facts", "ages", "samples")

    def __init__(
        self,
        facts: tuple[int, ...] = (16, 32),
        ages: tuple[int, ...] = (1, 4, 16, 64),
        vocab: int = 257,
        questions: int = 8,
        test_facts: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.facts, self.ages, self.vocab = tuple(facts), tuple(ages), vocab
        self.questions, self.samples = questions, samples
        self.test_facts = tuple(test_facts) or (*self.facts, 2 * max(self.facts, default=1))
        self.values = KEYS + (vocab - KEYS) // 2  # the first value
        every = (*self.facts, *self.test_facts)
        refuse(
            (
                not self.facts or min(every) < 1 or samples < 1 or questions < 1,
                "overflow needs facts, questions and samples of at least 1.",
            ),
            (
                not self.ages or min(self.ages) < 1 or min(self.ages) > min(every),
                f"overflow asks for facts of an age of 1 to {min(every, default=1)} at least: give ages from there.",
            ),
            (
                max(every) > self.values - KEYS,
                f"overflow with {max(every)} facts needs a vocab of at least {2 * max(every) + KEYS}.",
            ),
            (vocab - self.values < 2, "overflow needs a vocab of at least 5, for two values."),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"facts": draws.choice(self.facts), "age": "any"}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of facts, each at the ages that it reaches."""
        for facts in self.test_facts if split == "test" else self.facts:
            yield from ({"facts": facts, "age": age} for age in self.ages if age <= facts)

    def draw(self, draws: Random, where: Where) -> SymbolText:
        facts, age = where["facts"], where["age"]
        keys = draws.sample(range(KEYS, self.values), facts)
        values = [draws.randrange(self.values, self.vocab) for _ in keys]
        tokens = [token for pair in zip(keys, values, strict=True) for token in pair]
        targets = [IGNORE] * len(tokens)
        asked = [facts - age] if age != "any" else draws.sample(range(facts), min(self.questions, facts))
        for fact in asked:
            tokens, targets = [*tokens, ASK, keys[fact]], [*targets, IGNORE, values[fact]]
        return SymbolText(tokens, targets)

    def symbol(self, token: int) -> str:
        return "?" if token == ASK else f"k{token}" if token < self.values else f"v{token - self.values}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The fact of the key."""
        first = list(tokens).index(tokens[place])
        return [first, first + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value; the newest, the oldest and the commonest one of the text."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.vocab - self.values)),
            "cheat: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.values, self.vocab)),
            "cheat: first value": self.cheat(lambda tokens, place: tokens[1]),
            "cheat: commonest value": self.cheat(
                lambda tokens, place: commonest_of(tokens, place, self.values, self.vocab)
            ),
        }
