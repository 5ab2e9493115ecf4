"""The eight retrieval variants of RULER (Hsieh et al., arXiv 2404.06654, table of appendix B): what is hidden in what."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Variant(NamedTuple):
    """One variant: the haystack, the kinds of key and value, and how many of each are hidden and asked for."""

    haystack: Literal["noise", "books", "needles"]
    key: Literal["words", "uuids"] = "words"
    value: Literal["words", "numbers", "uuids"] = "numbers"
    keys: int = 1
    values: int = 1  # of each key
    queries: int = 1

    @property
    def asked(self) -> int:
        """How many values a right answer names."""
        return self.queries * self.values


VARIANTS: dict[str, Variant] = {
    "s-niah-1": Variant("noise"),
    "s-niah-2": Variant("books"),
    "s-niah-3": Variant("books", value="uuids"),
    "mk-niah-1": Variant("books", keys=4),
    "mk-niah-2": Variant("needles"),
    "mk-niah-3": Variant("needles", key="uuids", value="uuids"),
    "mv-niah": Variant("books", values=4),
    "mq-niah": Variant("books", keys=4, queries=4),
}
SINGLE = ("s-niah-1", "s-niah-2", "s-niah-3")
