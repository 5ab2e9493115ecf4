"""The compact template: our short form of the needle task for small models.

...mily had been \nkiwi=4821\nquite unable to\nkiwi=                          ->  4821\n
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from random import Random

import numpy as np

from tasks.needle.fitting import largest
from tasks.needle.places import word_gap
from tasks.needle.template import END, HiddenPair, NeedleSample, NeedleTemplate
from tasks.needle.values import Number, ShortUuid, Word
from tasks.needle.variants import VARIANTS, Variant
from tasks.needle.words import Words
from tasks.text.tokenizer import BYTES, Tokenizer, apart, ended

WORD = 6  # letters of a word and its blank


PROBE = 512  # bytes of haystack on which tokens are counted to guess how many bytes fit


class Compact(NeedleTemplate):
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

    def _drawn(self, stream: Random, split: str, variant: str, length: int, depth: float | None) -> NeedleSample | None:
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
            return NeedleSample(np.frombuffer(written(room), np.uint8), said, keys, values, start)
        text = self._fitted(written, length - self.answer_room[variant])
        if text is None or len(said) - 1 > self.answer_room[variant]:  # more tokens than the longest of those drawn
            return None
        both = apart(self.tokenizer, text, self.spoken(values))
        return both and NeedleSample(*both, keys, values, start)

    @staticmethod
    def _anywhere(stream: Random, room: int, step: int) -> float:
        """A depth for training: each gap in `room` tokens as often as what follows it is long, the end as if a `step` did.

        Nothing follows the end, so that no depth below 1 reaches it; but evaluations ask there too.
        """
        return min(1.0, stream.random() * (1 + step / max(step, room)))

    def _written(self, variant: str, needles: list[HiddenPair], filler: bytes) -> bytes:
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
