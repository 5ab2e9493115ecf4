"""Frequent words: a list drawn as natural words are, a few very often; which are the most frequent, in order?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, length_of_lesson, refuse
from tasks.task import IGNORE

ASK, WORDS = 0, 1  # the question mark, and the first word
TRIES = 1000  # texts in a row whose words tie, after which settings are given up


class FrequentWords(SymbolTask):
    """Frequent words: the most frequent words of a list, most frequent first, by its length.

    The words of a text are drawn one by one, the r-th of them with a chance proportional to r^-`alpha`; which word is the
    r-th, is drawn anew for each text. Behind a question mark the `asked` most frequent are asked one after another; texts in
    which two of these, or the last of them and another word, stand equally often are drawn again. RULER (Hsieh et al.
    2024, arXiv 2404.06654) takes alpha 2, asks 3, and puts dots in place of the most frequent word. Training draws lengths up
    to `length`; the test asks `test_lengths`, by default 1, 2 and 4 times it. All of `vocab` but the question mark are words.

    >>> print(aligned(create("frequent-words", asked=2, length=24, vocab=8)))
    w2 w7 w3 w7 w2 w5 w5 w5 w5 w5 w5 w7 w7 w2 w5 w5 w7 w3 w7 w5 w2 w5 ?  w5
    _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  _  w5 w7
    """

    name = "frequent-words"
    exam_settings = ("test_lengths", "samples")

    def __init__(
        self,
        asked: int = 3,
        alpha: float = 2.0,
        length: int = 64,
        vocab: int = 65,
        test_lengths: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.asked, self.alpha, self.length, self.vocab, self.samples = asked, alpha, length, vocab, samples
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length)
        self.shortest = 4 * asked * (asked + 1)  # at which different counts of all asked are no rarity
        refuse(
            (asked < 1 or samples < 1, "frequent-words needs asked and samples of at least 1."),
            (not alpha > 0, "frequent-words needs an alpha above 0."),
            (vocab - WORDS <= asked, f"frequent-words needs a vocab of at least {asked + 2}."),
            (
                min(length, *self.test_lengths) < self.shortest,
                f"frequent-words that asks {asked} needs lengths of at least {self.shortest}.",
            ),
        )

        self.draw(Random(0), {"length": self.shortest})  # raises where hardly any text can be asked about

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"length": length_of_lesson(draws, progress, self.shortest, self.length)}

    def cells(self, split: str) -> Iterator[Where]:
        """Every length."""
        yield from ({"length": length} for length in (self.test_lengths if split == "test" else (self.length,)))

    def draw(self, draws: Random, where: Where) -> SymbolText:
        words = draws.sample(range(WORDS, self.vocab), self.vocab - WORDS)
        weights = [rank**-self.alpha for rank in range(1, len(words) + 1)]
        for _ in range(TRIES):
            tokens = draws.choices(words, weights, k=where["length"] - self.asked)
            ranked = Counter(tokens).most_common(self.asked + 1)
            counts = [count for _, count in ranked] + [0] * (self.asked + 1 - len(ranked))
            if all(more > less for more, less in pairwise(counts)):
                asked = [word for word, _ in ranked[: self.asked]]
                return SymbolText([*tokens, ASK, *asked[:-1]], [IGNORE] * len(tokens) + asked)
        raise ValueError(
            f"frequent-words found no text of {where['length']} at alpha {self.alpha:g} whose {self.asked + 1} most frequent "
            "words differ in their counts: raise the length, or bring alpha nearer to 1."
        )

    def symbol(self, token: int) -> str:
        return "?" if token == ASK else f"w{token}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """Every place of the word that is asked."""
        end = list(tokens).index(ASK)
        answer = Counter(tokens[:end]).most_common(self.asked)[place - end][0]
        return [i for i, word in enumerate(tokens[:end]) if word == answer]

    def readers(self) -> dict[str, Reader]:
        """Guessing any word; the last word; the first not said yet; the most frequent of few words.

        Who counts half of the text counts: a reference.
        """
        return {
            "floor: uniform words": self.guess(lambda where: 1 / (self.vocab - WORDS)),
            "floor: last word": self.cheat(lambda tokens, place: tokens[list(tokens).index(ASK) - 1]),
            "cheat: first word not said yet": self.cheat(lambda tokens, place: _first(tokens, place)),
            "cheat: most frequent of an eighth": self.cheat(lambda tokens, place: _commonest(tokens, place, 0, 0.125)),
            "reference: most frequent of the last half": self.cheat(
                lambda tokens, place: _commonest(tokens, place, 0.5, 1)
            ),
        }


def _first(tokens: Sequence[int], place: int) -> int:
    """The first word of the text that was not said yet."""
    end = list(tokens).index(ASK)
    said = set(tokens[end + 1 : place + 1])
    return next((word for word in tokens[:end] if word not in said), tokens[0])


def _commonest(tokens: Sequence[int], place: int, begin: float, end: float) -> int:
    """The most frequent word of a part of the text that was not said yet, of equals the first; ASK where there is none."""
    length = list(tokens).index(ASK)
    said = set(tokens[length + 1 : place + 1])
    counts = Counter(word for word in tokens[int(begin * length) : int(end * length)] if word not in said)
    return max(counts, key=counts.__getitem__, default=ASK)
