"""How the needle task is written, and its two templates: how keys, values, haystack and question become a text.

    compact   ...mily had been \nkiwi=4821\nquite unable to\nkiwi=                          ->  4821\n
    ruler     A special magic number is hidden within the following text. ... is            ->  4821937\n

Several keys are asked as `kiwi,plum=` and "kiwi, and plum"; their values are answered in the order of the keys, and
the values of one key in the order of the text.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np

from tasks.needle.haystack import NOISE, Haystack, books
from tasks.needle.values import Value
from tasks.needle.variants import VARIANTS, Variant
from tasks.rng import stream as random_stream
from tasks.text import corpus as corpora
from tasks.text.tokenizer import BYTES, Tokenizer, ended

END = "\n"  # closes every answer
ATTEMPTS = 100  # at a sample
FEWEST_VALUES = 1000  # of fewer, those that no training pairs with a key would tell what the test asks
DRAWN = 256  # values drawn to see how many tokens one takes
SHARES = {"train": range(0, 205), "validation": range(205, 230), "test": range(230, 256)}


class NeedleSample(NamedTuple):
    """One question in tokens, its answer with the terminator, and what they were made of."""

    prompt: np.ndarray
    answer: np.ndarray
    keys: tuple[str, ...]  # those that are asked
    values: tuple[str, ...]  # the references, in the order of the answer
    start: int  # where in the haystack the text begins


class HiddenPair(NamedTuple):
    """One key and one of its values, hidden at `depth` (0 first, 1 last)."""

    key: str
    value: str
    depth: float


def split_of(key: str, value: str) -> str:
    """The one split in which a value may belong to a key: 80 % of all pairs train, 10 % validate, 10 % test."""
    first = hashlib.sha256(f"{key}={value}".encode()).digest()[0]
    return next(split for split, share in SHARES.items() if first in share)


class NeedleTemplate(ABC):
    """How samples are written; `metric_prefix` keeps the metrics of the two templates apart.

    `kinds` says how words, numbers and uuids look; `values` overrides the kind of value of every variant.
    """

    metric_prefix: ClassVar[str]
    sign: ClassVar[str]  # what stands before the value
    separators: ClassVar[str]  # a regular expression that divides the values of an answer

    def __init__(self, corpus: str, kinds: dict[str, Value], values: str | None, tokenizer: Tokenizer) -> None:
        self.corpus, self.kinds, self.tokenizer = corpus, kinds, tokenizer
        self.values = {name: kinds[values or variant.value] for name, variant in VARIANTS.items()}
        self.noise = Haystack(NOISE)

    @abstractmethod
    def minimum(self, variant: str) -> int:
        """The smallest length in tokens at which every sample can be written."""

    @abstractmethod
    def generation(self, variant: str) -> int:
        """How many tokens a model may generate."""

    @property
    def stop(self) -> int | None:
        """The token at which a generated answer ends; None where all that may be generated is read."""
        return int(ended(self.tokenizer, "")[-1])

    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> NeedleSample:
        """A sample of at most `length` tokens; the first needle that is asked lies at `depth` (None: anywhere).

        Raises ValueError where none of many fits, or none of their answers is tokens of its own.
        """
        for _ in range(ATTEMPTS):
            if (sample := self._drawn(stream, split, variant, length, depth)) is not None:
                return sample
        raise ValueError(
            f"No needle {variant} of {length} tokens of '{self.tokenizer.name}' could be written in {ATTEMPTS} attempts: "
            "choose a longer length or another tokenizer."
        )

    @abstractmethod
    def _drawn(self, stream: Random, split: str, variant: str, length: int, depth: float | None) -> NeedleSample | None:
        """One attempt at it; None where it does not fit, or a token joins the question with its answer."""

    @abstractmethod
    def spoken(self, values: tuple[str, ...]) -> str:
        """The answer that names these values, without the terminator."""

    @abstractmethod
    def line(self, variant: str, key: str, value: str) -> str:
        """A needle as it stands in the haystack."""

    def references(self, answer: str) -> list[str]:
        """The values that a true answer names."""
        return re.split(self.separators, answer.strip())

    def pairs(self, stream: Random, split: str, variant: str) -> list[tuple[str, str]]:
        """Different keys, each with different values that belong to the split; those that are asked come first.

        Of few values any may belong to any key in every split: who remembers the pairs that were trained knows nothing of
        those that are asked.
        """
        shape, found = VARIANTS[variant], {}
        while len(found) < shape.keys:
            key = self.kinds[shape.key].draw(stream)
            values = [self.values[variant].draw(stream)]
            while len(values) < shape.values:
                value = self.values[variant].draw(stream)
                values += [value] if value not in values else []
            if key not in found and (not self.parted(variant) or split_of(key, " ".join(values)) == split):
                found[key] = values
        return [(key, value) for key, values in found.items() for value in values]

    def parted(self, variant: str) -> bool:
        """Whether training, validation and test have pairs of their own."""
        return self.values[variant].count >= FEWEST_VALUES

    def placed(
        self, pairs: list[tuple[str, str]], depths: list[float], shape: Variant
    ) -> tuple[list[HiddenPair], list]:
        """All needles in the order of the text, and those that are asked in the order of the answer."""
        needles = [HiddenPair(*pair, depth) for pair, depth in zip(pairs, depths, strict=True)]
        asked = needles[: shape.asked]
        if shape.values > 1:
            asked = sorted(asked, key=lambda needle: needle.depth)
        return sorted(needles, key=lambda needle: needle.depth), asked

    def longest(self, kind: Value) -> str:
        """What takes the most tokens of a kind: of all that there are in bytes, of many that are drawn otherwise."""
        if self.tokenizer is BYTES:
            return "0" * kind.longest
        draws = random_stream("longest", kind.kind)
        return max((kind.draw(draws) for _ in range(DRAWN)), key=lambda drawn: len(self.tokenizer.encode(drawn)))

    def haystack(self, split: str, variant: str) -> Haystack:
        """What the needle is hidden in, where that is running text or noise."""
        return self.noise if VARIANTS[variant].haystack == "noise" else books(split, self.corpus)

    def haystack_label(self, variant: str) -> str:
        """Its name for the tables."""
        kind = VARIANTS[variant].haystack
        return corpora.label(self.corpus) if kind == "books" else kind

    def distractor(self, stream: Random, variant: str, keys: tuple[str, ...]) -> str:
        """A line of a haystack of needles, with none of the keys that are asked."""
        while (key := self.kinds[VARIANTS[variant].key].draw(stream)) in keys:
            pass
        return self.line(variant, key, self.values[variant].draw(stream))
