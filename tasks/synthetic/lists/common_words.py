"""Common words: a shuffled list in which a few words stand often and many seldom; which are the few?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from tasks.harness.floors import Reader
from tasks.synthetic.symbol_task import SymbolTask, SymbolText, Where, refuse
from tasks.task import IGNORE

ASK, WORDS = 0, 1  # the question mark, and the first word


class CommonWords(SymbolTask):
    """Common words: the few words of a list that stand there often, in the order of their first appearance.

    A text is a shuffled list of `common` words that stand `often` times each and `rare` ones that stand `seldom` times, then a
    question mark, behind which all common words are asked one after another. RULER (Hsieh et al. 2024, arXiv 2404.06654)
    takes 10 words 30 times and the others 3 times, and any order. Training draws from `rare`; the test asks
    `test_rare`, by default those and twice the most. All of `vocab` but the question mark are words.

    >>> print(aligned(create("common-words", common=2, often=3, seldom=1, rare=(3,), vocab=12)))
    w11 w7 w3 w6 w7 w9 w9 w9 w7 ?  w7
    _   _  _  _  _  _  _  _  _  w7 w9
    """

    name = "common-words"
    exam_settings = ("test_rare", "samples")

    def __init__(
        self,
        common: int = 3,
        often: int = 10,
        seldom: int = 2,
        rare: tuple[int, ...] = (8, 16),
        vocab: int = 65,
        test_rare: tuple[int, ...] = (),
        samples: int = 128,
    ) -> None:
        self.common, self.often, self.seldom, self.rare = common, often, seldom, tuple(rare)
        self.vocab, self.samples = vocab, samples
        self.test_rare = tuple(test_rare) or (*self.rare, 2 * max(self.rare, default=1))
        every = (*self.rare, *self.test_rare)
        refuse(
            (common < 1 or seldom < 1 or samples < 1, "common-words needs common, seldom and samples of at least 1."),
            (often <= seldom, "common-words needs often above seldom."),
            (not self.rare or min(every) < 1, "common-words needs rare words, at least 1."),
            (
                common + max(every) >= vocab,
                f"common-words with {common + max(every)} words needs a vocab of at least {common + max(every) + WORDS}.",
            ),
        )

    def lesson(self, draws: Random, progress: float) -> Where:
        return {"rare": draws.choice(self.rare)}

    def cells(self, split: str) -> Iterator[Where]:
        """Every number of rare words."""
        yield from ({"rare": rare} for rare in (self.test_rare if split == "test" else self.rare))

    def draw(self, draws: Random, where: Where) -> SymbolText:
        words = draws.sample(range(WORDS, self.vocab), self.common + where["rare"])
        few, many = words[: self.common], words[self.common :]
        tokens = few * self.often + many * self.seldom
        draws.shuffle(tokens)
        asked = sorted(few, key=tokens.index)
        return SymbolText([*tokens, ASK, *asked[:-1]], [IGNORE] * len(tokens) + asked)

    def symbol(self, token: int) -> str:
        return "?" if token == ASK else f"w{token}"

    def sources(self, tokens: Sequence[int], place: int) -> list[int]:
        """Every place of the word that is asked."""
        text = list(tokens[: list(tokens).index(ASK)])
        answer = _unsaid(tokens, place, text, self.often)[0]
        return [i for i, word in enumerate(text) if word == answer]

    def readers(self) -> dict[str, Reader]:
        """Guessing any word, or one of the text; the last one; the next not said yet, or one that soon came again.

        Who counts to three in half of the text counts, if not far: a reference.
        """
        return {
            "floor: uniform words": self.guess(lambda where: 1 / (self.vocab - WORDS)),
            "floor: any word of the text": self.guess(lambda where: 1 / (self.common + where["rare"])),
            "floor: last word": self.cheat(lambda tokens, place: tokens[list(tokens).index(ASK) - 1]),
            "cheat: first word not said yet": self.cheat(lambda tokens, place: _next(tokens, place, 1, 1)),
            "cheat: word twice in a quarter": self.cheat(lambda tokens, place: _next(tokens, place, 2, 4)),
            "reference: word thrice in a half": self.cheat(lambda tokens, place: _next(tokens, place, 3, 2)),
        }


def _next(tokens: Sequence[int], place: int, times: int, part: int) -> int:
    """The first word not said yet that comes so many times in the first part of the text; any other where none does."""
    text = list(tokens[: list(tokens).index(ASK)])
    left = _unsaid(tokens, place, text[: max(1, len(text) // part)], times) or _unsaid(tokens, place, text, 1)
    return left[0] if left else text[0]


def _unsaid(tokens: Sequence[int], place: int, text: Sequence[int], times: int) -> list[int]:
    """The words of a text that come at least so many times and were not said before a place, as they first appear."""
    said, counts = set(tokens[list(tokens).index(ASK) + 1 : place + 1]), Counter(text)
    return [word for word, count in counts.items() if count >= times and word not in said]
