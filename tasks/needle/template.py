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
from collections.abc import Callable
from functools import cached_property, partial
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np

from tasks.needle.fitting import largest
from tasks.needle.haystack import NOISE, Haystack, books
from tasks.needle.places import word_gap
from tasks.needle.values import Number, ShortUuid, Value, Word
from tasks.needle.variants import VARIANTS, Variant
from tasks.needle.words import Words
from tasks.rng import stream as random_stream
from tasks.text import corpus as corpora
from tasks.text.tokenizer import BYTES, Tokenizer, apart, ended

END = "\n"  # closes every answer
ATTEMPTS = 100  # at a sample
FEWEST_VALUES = 1000  # of fewer, those that no training pairs with a key would tell what the test asks
DRAWN = 256  # values drawn to see how many tokens one takes
WORD = 6  # letters of a word and its blank
PROBE = 512  # bytes of haystack on which tokens are counted to guess how many bytes fit
SHARES = {"train": range(0, 205), "validation": range(205, 230), "test": range(230, 256)}


class Sample(NamedTuple):
    """One question in tokens, its answer with the terminator, and what they were made of."""

    prompt: np.ndarray
    answer: np.ndarray
    keys: tuple[str, ...]  # those that are asked
    values: tuple[str, ...]  # the references, in the order of the answer
    start: int  # where in the haystack the text begins


class Needle(NamedTuple):
    """One key and one of its values, hidden at `depth` (0 first, 1 last)."""

    key: str
    value: str
    depth: float


def split_of(key: str, value: str) -> str:
    """The one split in which a value may belong to a key: 80 % of all pairs train, 10 % validate, 10 % test."""
    first = hashlib.sha256(f"{key}={value}".encode()).digest()[0]
    return next(split for split, share in SHARES.items() if first in share)


class Template(ABC):
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

    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> Sample:
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
    def _drawn(self, stream: Random, split: str, variant: str, length: int, depth: float | None) -> Sample | None:
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

    def placed(self, pairs: list[tuple[str, str]], depths: list[float], shape: Variant) -> tuple[list[Needle], list]:
        """All needles in the order of the text, and those that are asked in the order of the answer."""
        needles = [Needle(*pair, depth) for pair, depth in zip(pairs, depths, strict=True)]
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


class Compact(Template):
    """Our short form for small models, from 64 bytes up: key, value, short query, at exactly the length asked for.

    The haystack holds no line break, so the needle and the query are the only lines of their own. Keys are equally
    long, as small models then learn to retrieve in far fewer steps.
    """

    metric_prefix = "compact_"
    sign = "="
    separators = ","
    KEY_LETTERS = 5
    FEWEST_KEYS = 16

    def __init__(
        self,
        corpus: str,
        words: Words,
        digits: int,
        uuid_groups: int,
        values: str | None = None,
        tokenizer: Tokenizer = BYTES,
        key_letters: int = KEY_LETTERS,
    ) -> None:
        nouns = [noun for noun in words.nouns if noun.isalpha() and noun.islower() and len(noun) == key_letters]
        if len(nouns) < self.FEWEST_KEYS:
            raise ValueError(
                f"The word lists hold {len(nouns)} keys of {key_letters} letters, too few: choose another key_letters."
            )
        kinds = {"words": Word((tuple(nouns),)), "numbers": Number(digits), "uuids": ShortUuid(uuid_groups)}
        super().__init__(corpus, kinds, values, tokenizer)

    @cached_property
    def answer_room(self) -> dict[str, int]:
        """Tokens of the longest answer to each variant, without its terminator."""
        spoken = {
            name: self.spoken((self.longest(self.values[name]),) * shape.asked) for name, shape in VARIANTS.items()
        }
        return {name: len(self.tokenizer.encode(answer)) for name, answer in spoken.items()}

    def minimum(self, variant: str) -> int:
        """Tokens of needles, query and values, and of one needle more where needles are the haystack."""
        shape = VARIANTS[variant]
        key, value = self.longest(self.kinds[shape.key]), self.longest(self.values[variant])
        lines = shape.keys * shape.values + (shape.haystack == "needles")
        prompt = lines * self.line(variant, key, value) + self._query((key,) * shape.queries)
        return len(self.tokenizer.encode(prompt)) + self.answer_room[variant]

    def generation(self, variant: str) -> int:
        """The values, what divides them, and the terminator."""
        return VARIANTS[variant].asked * (self.values[variant].longest + 1) - 1 + len(END)

    def spoken(self, values: tuple[str, ...]) -> str:
        return ",".join(values)

    def line(self, variant: str, key: str, value: str) -> str:
        return f"\n{key}={value}" + "\n" * (VARIANTS[variant].haystack != "needles")

    @staticmethod
    def _query(keys: tuple[str, ...]) -> str:
        return f"\n{','.join(keys)}="

    def _drawn(self, stream: Random, split: str, variant: str, length: int, depth: float | None) -> Sample | None:
        """A sample whose prompt and values together have exactly `length` bytes, or as many tokens as fit `length`.

        In tokens the longest answer is counted whatever the sample's is: the place where a question ends must not tell how
        many tokens its answer has.
        """
        shape, pairs = VARIANTS[variant], self.pairs(stream, split, variant)
        keys = tuple(dict.fromkeys(key for key, _ in pairs[: shape.asked]))
        answer = self.spoken(tuple(value for _, value in pairs[: shape.asked]))
        room = length - sum(len(self.line(variant, *pair)) for pair in pairs) - len(self._query(keys)) - len(answer)
        start, filler = self._filler(stream, split, variant, keys)
        if self.tokenizer is BYTES:
            filler(room)  # of a haystack of needles, these are drawn before the depths
        step = len(self.line(variant, *pairs[0])) if shape.haystack == "needles" else WORD
        first = self._anywhere(stream, room, step) if depth is None else depth
        depths = [first, *(stream.random() for _ in pairs[1:])]
        needles, asked = self.placed(pairs, depths, shape)
        values = tuple(needle.value for needle in asked)
        said = ended(self.tokenizer, self.spoken(values))

        def written(room: int) -> bytes:
            return self._written(variant, needles, filler(room)) + self._query(keys).encode()

        if self.tokenizer is BYTES:
            return Sample(np.frombuffer(written(room), np.uint8), said, keys, values, start)
        text = self._fitted(written, length - self.answer_room[variant])
        if text is None or len(said) - 1 > self.answer_room[variant]:  # more tokens than the longest of those drawn
            return None
        both = apart(self.tokenizer, text, self.spoken(values))
        return both and Sample(*both, keys, values, start)

    @staticmethod
    def _anywhere(stream: Random, room: int, step: int) -> float:
        """A depth for training: each gap in `room` tokens as often as what follows it is long, the end as if a `step` did.

        Nothing follows the end, so that no depth below 1 reaches it; but exams ask there too.
        """
        return min(1.0, stream.random() * (1 + step / max(step, room)))

    def _written(self, variant: str, needles: list[Needle], filler: bytes) -> bytes:
        """The haystack with its needles."""
        parts, done = [], 0
        for key, value, deep in needles:
            place = max(done, self._gap(filler, deep, VARIANTS[variant]))
            parts += [filler[done:place], self.line(variant, key, value).encode()]
            done = place
        return b"".join([*parts, filler[done:]])

    def _fitted(self, written: Callable[[int], bytes], most: int) -> str | None:
        """The prompt with the longest haystack that has at most `most` tokens; None where none has."""

        def text(room: int) -> str:
            return written(room).decode("utf-8", errors="ignore")  # passages cut characters

        def tokens(room: int) -> np.ndarray:
            return self.tokenizer.encode(text(room))

        bare, more = len(tokens(0)), len(tokens(PROBE))
        if bare > most:
            return None
        near = int((most - bare) * PROBE / max(1, more - bare))
        return text(largest(lambda room: len(tokens(room)) <= most, least=0, near=near))

    @staticmethod
    def _gap(filler: bytes, depth: float, shape: Variant) -> int:
        """The last place before `depth` where a needle cuts no word, or no other needle."""
        place = int(len(filler) * depth)
        if shape.haystack != "needles":
            return word_gap(filler, depth)
        if place == len(filler):
            return place
        return max(filler.rfind(b"\n", 0, place + 1), filler.find(b"\n"))

    def _filler(
        self, stream: Random, split: str, variant: str, keys: tuple[str, ...]
    ) -> tuple[int, Callable[[int], bytes]]:
        """Where in the haystack the text begins, and what gives so many bytes of it; the first of many needles is cut."""
        if VARIANTS[variant].haystack != "needles":
            haystack = self.haystack(split, variant)
            start = stream.randrange(len(haystack))
            return start, partial(haystack.passage, start)
        lines: list[str] = []

        def needles(room: int) -> bytes:
            have, count = 0, 0
            while have < room:
                if count == len(lines):
                    lines.append(self.distractor(stream, variant, keys))
                have += len(lines[count])
                count += 1
            return "".join(lines[:count]).encode()[have - room :]

        return 0, needles
