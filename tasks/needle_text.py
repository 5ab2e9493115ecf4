"""The two templates of the needle task: how key, value, haystack and question become a text.

    compact   ...mily had been \nkiwi=4821\nquite unable to\nkiwi=                          ->  4821\n
    ruler     A special magic number is hidden within the following text. ... is            ->  4821937\n

The three variants are those of RULER (Hsieh et al., arXiv 2404.06654): S-NIAH-1 hides a number in repeated noise,
S-NIAH-2 a number in prose, S-NIAH-3 a uuid in prose.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np

from tasks import corpus as corpora
from tasks.haystack import NOISE, Haystack, books
from tasks.needle_values import Number, ShortUuid, Uuid, Value
from tasks.tokenizer import BYTES, Tokenizer
from tasks.words import Words

VARIANTS = ("s-niah-1", "s-niah-2", "s-niah-3")
END = "\n"  # closes every answer
SHARES = {"train": range(0, 205), "validation": range(205, 230), "test": range(230, 256)}


class Sample(NamedTuple):
    """One question in tokens, its answer with the terminator, and what they were made of."""

    prompt: np.ndarray
    answer: np.ndarray
    key: str
    value: str
    start: int  # where in the haystack the text begins


def split_of(key: str, value: str) -> str:
    """The one split in which a value may belong to a key: 80 % of all pairs train, 10 % validate, 10 % test."""
    first = hashlib.sha256(f"{key}={value}".encode()).digest()[0]
    return next(split for split, share in SHARES.items() if first in share)


class Template(ABC):
    """How samples are written; `metric_prefix` keeps the metrics of the two templates apart."""

    metric_prefix: ClassVar[str]
    sign: ClassVar[str]  # what stands before the value

    def __init__(self, corpus: str, number: Value, uuid: Value) -> None:
        self.corpus = corpus
        self.values = {"s-niah-1": number, "s-niah-2": number, "s-niah-3": uuid}
        self.noise = Haystack(NOISE)

    @abstractmethod
    def minimum(self, variant: str) -> int:
        """The smallest length in tokens at which every sample can be written."""

    @abstractmethod
    def generation(self, variant: str) -> int:
        """How many tokens a model may generate."""

    @abstractmethod
    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> Sample:
        """A sample of at most `length` tokens with the needle at `depth` (0 first, 1 last; None: anywhere)."""

    @abstractmethod
    def key(self, stream: Random) -> str:
        """A random key."""

    def pair(self, stream: Random, split: str, variant: str) -> tuple[str, str]:
        """A key and a fresh value that belong to the split."""
        while True:
            key, value = self.key(stream), self.values[variant].draw(stream)
            if split_of(key, value) == split:
                return key, value

    def haystack(self, split: str, variant: str) -> Haystack:
        """What the needle is hidden in."""
        return self.noise if variant == "s-niah-1" else books(split, self.corpus)

    def haystack_label(self, variant: str) -> str:
        """Its name for the tables."""
        return "noise" if variant == "s-niah-1" else corpora.label(self.corpus)


class Compact(Template):
    """Our short form for small models, from 64 bytes up: key, value, short query, at exactly the length asked for.

    The haystack holds no line break, so the needle and the query are the only lines of their own. Keys are equally
    long, as small models then learn to retrieve in far fewer steps.
    """

    metric_prefix = "compact_"
    sign = "="
    KEY_LENGTH = 5

    def __init__(self, corpus: str, words: Words, digits: int, uuid_groups: int) -> None:
        super().__init__(corpus, Number(digits), ShortUuid(uuid_groups))
        self.keys = [noun for noun in words.nouns if noun.isalpha() and noun.islower() and len(noun) == self.KEY_LENGTH]

    def minimum(self, variant: str) -> int:
        """Bytes of needle, query and value, and no haystack."""
        return 2 * (self.KEY_LENGTH + len(self.values[variant].chances())) + len("\n=\n\n=")

    def generation(self, variant: str) -> int:
        """The value and the terminator."""
        return len(self.values[variant].chances()) + len(END)

    def key(self, stream: Random) -> str:
        """A noun of five letters."""
        return stream.choice(self.keys)

    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> Sample:
        """A sample whose prompt and value together have exactly `length` bytes; the needle cuts no word."""
        key, value = self.pair(stream, split, variant)
        needle, query = f"\n{key}={value}\n".encode(), f"\n{key}=".encode()
        haystack = self.haystack(split, variant)
        start, room = stream.randrange(len(haystack)), length - len(needle) - len(query) - len(value)
        filler = haystack.passage(start, room)
        place = int(room * (stream.random() if depth is None else depth))
        if place < room:
            place = filler.rfind(b" ", 0, place) + 1
        prompt = filler[:place] + needle + filler[place:] + query
        return Sample(np.frombuffer(prompt, np.uint8), BYTES.encode(value + END), key, value, start)


class Ruler(Template):
    """RULER's own wording, 7 digits and version-4 uuids, with books in place of the essays.

    128 tokens of every length are kept for generation. The haystack starts at a random word and is the longest to fit.
    """

    metric_prefix = ""
    sign = "is: "
    GENERATION = 128
    DEPTHS = tuple(round(100 * i / 39) / 100 for i in range(40))
    NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
    PROMPT = (
        "A special magic {kind} is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {kind} afterwards.\n{context}\n"
        "What is the special magic {kind} for {key} mentioned in the provided text? "
        "The special magic {kind} for {key} mentioned in the provided text is"
    )
    SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

    def __init__(self, corpus: str, words: Words, tokenizer: Tokenizer = BYTES) -> None:
        super().__init__(corpus, Number(7), Uuid())
        self.words, self.tokenizer = words, tokenizer

    def minimum(self, variant: str) -> int:
        """Tokens of the longest sample with one line of noise or one word of prose, and of the generation."""
        key = "-".join(max(kind, key=len) for kind in self.words)
        haystacks = [self.haystack(split, variant) for split in SHARES]
        context = NOISE if variant == "s-niah-1" else "x" * max(haystack.longest_word for haystack in haystacks)
        value = "0" * len(self.values[variant].chances())
        text = self._prompt(variant, key, value, context, 0.0)
        return len(self.tokenizer.encode(text)) + self.GENERATION

    def generation(self, variant: str) -> int:
        """RULER's 128 tokens."""
        return self.GENERATION

    def key(self, stream: Random) -> str:
        """An adjective and a noun, joined by a dash."""
        return f"{stream.choice(self.words.adjectives)}-{stream.choice(self.words.nouns)}"

    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> Sample:
        """A sample of at most `length` tokens, generation included: the largest haystack, by binary search."""
        key, value = self.pair(stream, split, variant)
        noise, haystack = variant == "s-niah-1", self.haystack(split, variant)
        first = 0 if noise else stream.randrange(len(haystack.word_starts))
        if depth is None:
            depth = stream.random() if noise else stream.choice(self.DEPTHS)

        def written(count: int) -> np.ndarray:
            context = "\n".join([NOISE] * count) if noise else haystack.words(first, count)
            return self.tokenizer.encode(self._prompt(variant, key, value, context, depth))

        fits, too_many = 1, length
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if len(written(middle)) + self.GENERATION <= length:
                fits = middle
            else:
                too_many = middle
        return Sample(written(fits), self.tokenizer.encode(f" {value}{END}"), key, value, first)

    def _prompt(self, variant: str, key: str, value: str, context: str, depth: float) -> str:
        """RULER's insertion: in noise a line, never the last; in prose before a sentence, stray blanks included."""
        kind = self.values[variant].kind
        needle = self.NEEDLE.format(kind=kind, key=key, value=value)
        if variant == "s-niah-1":
            lines = context.split("\n")
            lines.insert(min(int(depth * len(lines)), len(lines) - 1), needle)
            text = "\n".join(lines)
        else:
            sentences = self.SENTENCE_END.split(context)
            place = int(len(sentences) * depth)
            text = " ".join([" ".join(sentences[:place]), needle, " ".join(sentences[place:])])
        return self.PROMPT.format(kind=kind, context=text, key=key)
