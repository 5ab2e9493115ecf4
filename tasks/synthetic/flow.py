"""Flow: a marker announces that the facts behind it count; nothing in them surprises, so what was announced must carry on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, commonest_of, last_of, refuse
from tasks.task import IGNORE

MARKER, ASK, KEYS = 0, 1, 2  # the marker, the question mark, and the first key


class Flow(SymbolTask):
    """Flow: the values that keys had in an announced span, among other values of the same keys, by the span's length.

    A text is `facts` keys and values in turn. At a random place stands a marker; the `span` facts behind it give each
    key of the text once, and those count. Before and after the span the same keys come with other values, so that no
    fact of the span looks different from any other: only the marker tells, once, and what it announces must last for
    the whole span. (In Titans' words, arXiv 2501.00663, section 3.1: momentum carries the surprise of a moment to what
    follows.) Then come a question mark and a key, whose value in the span is asked. Training draws from `spans` and asks
    all keys; the test asks one, in each of `test_spans`. Of `vocab` symbols the marker and the question mark are
    taken; the others are keys and values, half each.

    >>> print(aligned(create("flow", spans=(2,), facts=5, vocab=18)))
    k6 v5 k6 v7 ! k7 v3 k6 v1 k7 v7 ? k7
    _  _  _  _  _ _  _  _  _  _  _  _ v3
    """

    name = "flow"
    exam_settings = ("test_spans", "samples")

    def __init__(
        self,
        spans: tuple[int, ...] = (1, 2, 4, 8),
        facts: int = 24,
        vocab: int = 66,
        test_spans: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.spans, self.facts, self.vocab, self.samples = tuple(spans), facts, vocab, samples
        self.test_spans = tuple(test_spans) or self.spans
        self.values = KEYS + (vocab - KEYS) // 2  # the first value
        every = (*self.spans, *self.test_spans)
        refuse(
            (not self.spans or min(every) < 1 or samples < 1, "flow needs spans and samples of at least 1."),
            (facts < 2 * max(every), f"flow needs facts of at least twice its longest span: {2 * max(every)} or more."),
            (
                max(every) > self.values - KEYS,
                f"flow with a span of {max(every)} needs a vocab of at least {2 * max(every) + KEYS}.",
            ),
            (vocab - self.values < 2, "flow needs a vocab of at least 6, for two values."),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        span = draws.choice(self.spans)
        return {"span": span, "asked": "all" if span > 1 else "one"}

    def cells(self, split: str) -> Iterator[Where]:
        """One cell for each span."""
        for span in self.test_spans if split == "test" else self.spans:
            yield {"span": span, "asked": "one"}

    def draw(self, draws: Random, where: Where) -> SymbolText:
        span = where["span"]
        keys = draws.sample(range(KEYS, self.values), span)
        counts = {key: draws.randrange(self.values, self.vocab) for key in keys}
        before = draws.randrange(self.facts - span + 1)
        tokens = self._others(draws, counts, before) + [MARKER]
        for key in draws.sample(keys, span):
            tokens += [key, counts[key]]
        tokens += self._others(draws, counts, self.facts - span - before)
        targets = [IGNORE] * len(tokens)
        for key in draws.sample(keys, span if where["asked"] == "all" else 1):
            tokens, targets = [*tokens, ASK, key], [*targets, IGNORE, counts[key]]
        return SymbolText(tokens, targets)

    def _others(self, draws: Random, counts: dict[int, int], number: int) -> list[int]:
        """Facts outside the span: its keys, each with any value but the one that counts."""
        found: list[int] = []
        for key in draws.choices(list(counts), k=number):
            value = draws.randrange(self.values, self.vocab - 1)
            found += [key, value + (value >= counts[key])]
        return found

    def symbol(self, token: int) -> str:
        named = {MARKER: "!", ASK: "?"}
        return named.get(token) or (f"k{token - KEYS}" if token < self.values else f"v{token - self.values}")

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """The marker, and the key's first fact behind it."""
        marker = list(tokens).index(MARKER)
        first = list(tokens).index(tokens[place], marker)
        return [marker, first, first + 1]

    def readers(self) -> dict[str, Reader]:
        """Guessing any value; the last one, the first behind the marker, the commonest; the asked key's last and first one."""
        return {
            "floor: uniform values": self.guess(lambda where: 1 / (self.vocab - self.values)),
            "floor: last value": self.cheat(lambda tokens, place: last_of(tokens, place, self.values, self.vocab)),
            "cheat: first value behind the marker": self.cheat(lambda tokens, place: tokens[tokens.index(MARKER) + 2]),
            "cheat: commonest value": self.cheat(
                lambda tokens, place: commonest_of(tokens, place, self.values, self.vocab)
            ),
            "cheat: last value of the key": self.cheat(lambda tokens, place: _values(tokens, place)[-1]),
            "cheat: first value of the key": self.cheat(lambda tokens, place: _values(tokens, place)[0]),
            "cheat: last value of the key before the marker": self.cheat(
                lambda tokens, place: (_values(tokens, place, tokens.index(MARKER)) or _values(tokens, place))[-1]
            ),
        }


def _values(tokens: Sequence[int], place: int, end: int | None = None) -> list[int]:
    """The values that the key at a place has had in the facts before `end`, by default before the first question, in order."""
    end = list(tokens).index(ASK) if end is None else end
    return [tokens[i + 1] for i in range(end) if tokens[i] == tokens[place]]
