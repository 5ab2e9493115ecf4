"""What needles are hidden in: the running text of a split's books, as long as it is asked for."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from tasks.text.corpus import EMBEDDED, documents, version

MOST_BYTES = 2**26  # more than a text of ten million tokens has
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


class Haystack:
    """A text on a ring: a passage may start anywhere and may be longer than the text, which then begins again.

    White space is single blanks, one of them between the end and the beginning.
    """

    def __init__(self, text: str) -> None:
        self.text = (" ".join(text.split()) + " ").encode("utf-8")

    def __len__(self) -> int:
        return len(self.text)

    def passage(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on, 0 <= start < len(self)."""
        end = start + size
        text = self.text if end <= len(self) else self.text * -(-end // len(self))
        return text[start:end]

    @cached_property
    def word_starts(self) -> np.ndarray:
        """The place of each word's first byte."""
        blanks = np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord(" "))
        return np.concatenate(([0], blanks[:-1] + 1))

    @cached_property
    def longest_word(self) -> int:
        """Bytes of the longest word."""
        return int(np.diff(self.word_starts, append=len(self)).max()) - 1

    def words(self, first: int, count: int) -> str:
        """`count` >= 1 words from word number `first` on."""
        laps, last = divmod(first + count, len(self.word_starts))
        start = int(self.word_starts[first])
        end = int(self.word_starts[last]) + laps * len(self) - 1
        return self.passage(start, end - start).decode("utf-8")


def books(split: str, corpus: str = EMBEDDED) -> Haystack:
    """The haystack of the documents of a split, the first MOST_BYTES of them, kept in memory."""
    return _books(split, corpus, version(corpus))


@lru_cache(maxsize=6)
def _books(split: str, corpus: str, _: tuple) -> Haystack:
    found = documents(split, corpus)
    before = found.texts.starts[:-1]
    return Haystack(" ".join(found[i].text for i in range(int(np.searchsorted(before, MOST_BYTES)))))
