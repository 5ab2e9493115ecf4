"""What a needle says: numbers, uuids and words, how they are drawn, found again, and guessed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from random import Random
from typing import Protocol
from uuid import UUID


class Value(Protocol):
    """A kind of value."""

    kind: str  # the word that RULER's sentences use
    pattern: str  # a regular expression that finds the values of this kind in a text
    longest: int  # characters of the longest value
    count: int  # how many values there are

    def draw(self, stream: Random) -> str:
        """A fresh value."""

    def chances(self, value: str) -> list[float]:
        """The chance that the best guess at each character of `value` is right, for somebody who knows only the kind."""


@dataclass(frozen=True)
class Number:
    """A number of `digits` digits, the first not 0: 4821."""

    digits: int
    kind = "number"

    @property
    def longest(self) -> int:
        """All are equally long."""
        return self.digits

    @property
    def count(self) -> int:
        """Nine tenths of all that many digits."""
        return 9 * 10 ** (self.digits - 1)

    @property
    def pattern(self) -> str:
        """Exactly that many digits in a row."""
        return rf"(?<![0-9])[0-9]{{{self.digits}}}(?![0-9])"

    def draw(self, stream: Random) -> str:
        """Uniform over all such numbers."""
        return str(stream.randrange(10 ** (self.digits - 1), 10**self.digits))

    def chances(self, value: str) -> list[float]:
        """One of nine, then one of ten."""
        return [1 / 9] + [1 / 10] * (self.digits - 1)


@dataclass(frozen=True)
class ShortUuid:
    """Pairs of hexadecimal digits with dashes between them: 3f-a9-1c."""

    groups: int
    kind = "uuid"

    @property
    def longest(self) -> int:
        """All are equally long."""
        return 3 * self.groups - 1

    @property
    def count(self) -> int:
        """256 for each pair."""
        return 256**self.groups

    @property
    def pattern(self) -> str:
        """Exactly that many pairs."""
        return rf"(?<![\w-])[0-9a-f]{{2}}(?:-[0-9a-f]{{2}}){{{self.groups - 1}}}(?![\w-])"

    def draw(self, stream: Random) -> str:
        """Every pair uniform over 256."""
        return "-".join(f"{stream.randrange(256):02x}" for _ in range(self.groups))

    def chances(self, value: str) -> list[float]:
        """One of sixteen; the dashes are certain."""
        return ([1 / 16, 1 / 16, 1.0] * self.groups)[:-1]


@dataclass(frozen=True)
class Uuid:
    """A random uuid of version 4: 1f0c8d5e-6b7a-4c3d-9e2f-0a1b2c3d4e5f."""

    kind = "uuid"
    longest = 36
    count = 2**122
    pattern = r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b"

    def draw(self, stream: Random) -> str:
        """122 random bits."""
        return str(UUID(int=stream.getrandbits(128), version=4))

    def chances(self, value: str) -> list[float]:
        """One of sixteen; the dashes and the version are certain, and the variant is one of four."""
        known = {8: 1.0, 13: 1.0, 14: 1.0, 18: 1.0, 19: 1 / 4, 23: 1.0}
        return [known.get(place, 1 / 16) for place in range(36)]


@dataclass(frozen=True)
class Word:
    """One word of each list, joined by dashes: `plum`, or `quiet-lantern`."""

    lists: tuple[tuple[str, ...], ...]
    kind = "word"

    @property
    def longest(self) -> int:
        """Of the longest word of each list."""
        return len("-".join(max(words, key=len) for words in self.lists))

    @property
    def count(self) -> int:
        """Every word of a list with every one of the others."""
        return prod(map(len, self.lists))

    @property
    def pattern(self) -> str:
        """As many words, of letters, as there are lists."""
        return r"[A-Za-z']+" + r"-[\w'-]+" * (len(self.lists) - 1) + r"(?![\w-])"

    def draw(self, stream: Random) -> str:
        """Uniform over each list."""
        return "-".join(stream.choice(words) for words in self.lists)

    def chances(self, value: str) -> list[float]:
        """1 or 0: the guess is the character by which most words of the lists go on from what stands before."""
        return [float(_likeliest(self.lists, value[:place]) == letter) for place, letter in enumerate(value)]


@lru_cache(maxsize=65536)
def _likeliest(lists: tuple[tuple[str, ...], ...], begun: str) -> str:
    """The most probable character after `begun`, the first in the alphabet of those that are equally probable."""
    words, rest = lists[0], begun
    for following in lists[1:]:
        whole = next((word for word in words if rest.startswith(word + "-")), None)
        if whole is None:
            break
        words, rest = following, rest[len(whole) + 1 :]
    end = "" if words is lists[-1] else "-"
    counts = Counter((word + end)[len(rest) : len(rest) + 1] for word in words if (word + end).startswith(rest))
    return min(counts, key=lambda letter: (-counts[letter], letter))
