"""What a needle says: numbers and uuids, how they are drawn, found again, and guessed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol
from uuid import UUID


class Value(Protocol):
    """A kind of value; all values of a kind are equally long."""

    kind: str  # the word that RULER's sentences use
    pattern: str  # a regular expression that finds the values of this kind in a text

    def draw(self, stream: Random) -> str:
        """A fresh value."""

    def chances(self) -> list[float]:
        """The chance of the best guess at each character, for somebody who knows the kind and nothing else."""


@dataclass(frozen=True)
class Number:
    """A number of `digits` digits, the first not 0: 4821."""

    digits: int
    kind = "number"

    @property
    def pattern(self) -> str:
        """Exactly that many digits in a row."""
        return rf"(?<![0-9])[0-9]{{{self.digits}}}(?![0-9])"

    def draw(self, stream: Random) -> str:
        """Uniform over all such numbers."""
        return str(stream.randrange(10 ** (self.digits - 1), 10**self.digits))

    def chances(self) -> list[float]:
        """One of nine, then one of ten."""
        return [1 / 9] + [1 / 10] * (self.digits - 1)


@dataclass(frozen=True)
class ShortUuid:
    """Pairs of hexadecimal digits with dashes between them: 3f-a9-1c."""

    groups: int
    kind = "uuid"

    @property
    def pattern(self) -> str:
        """Exactly that many pairs."""
        return rf"(?<![\w-])[0-9a-f]{{2}}(?:-[0-9a-f]{{2}}){{{self.groups - 1}}}(?![\w-])"

    def draw(self, stream: Random) -> str:
        """Every pair uniform over 256."""
        return "-".join(f"{stream.randrange(256):02x}" for _ in range(self.groups))

    def chances(self) -> list[float]:
        """One of sixteen; the dashes are certain."""
        return ([1 / 16, 1 / 16, 1.0] * self.groups)[:-1]


@dataclass(frozen=True)
class Uuid:
    """A random uuid of version 4: 1f0c8d5e-6b7a-4c3d-9e2f-0a1b2c3d4e5f."""

    kind = "uuid"
    pattern = r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b"

    def draw(self, stream: Random) -> str:
        """122 random bits."""
        return str(UUID(int=stream.getrandbits(128), version=4))

    def chances(self) -> list[float]:
        """One of sixteen; the dashes and the version are certain, and the variant is one of four."""
        known = {8: 1.0, 13: 1.0, 14: 1.0, 18: 1.0, 19: 1 / 4, 23: 1.0}
        return [known.get(place, 1 / 16) for place in range(36)]
