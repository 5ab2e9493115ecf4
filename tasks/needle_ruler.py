"""RULER's own template of the needle (Hsieh et al., arXiv 2404.06654): the wording beside which printed numbers stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import numpy as np

from tasks.fitting import largest
from tasks.haystack import NOISE
from tasks.needle_text import SHARES, Needle, Sample, Template
from tasks.needle_values import Number, Uuid, Word
from tasks.needle_variants import VARIANTS
from tasks.tokenizer import BYTES, Tokenizer, ended
from tasks.words import Words


class Ruler(Template):
    """RULER's own wording, 7 digits and version-4 uuids, with books in place of the essays.

    128 tokens of every length are kept for generation, and all of them are generated and searched for the values, whatever
    stands before them. The haystack starts at a random word and is the longest to fit.
    """

    metric_prefix = ""
    stop = None
    sign = "is: "
    separators = ", and |, "
    GENERATION = 128
    DEPTHS = tuple(round(100 * i / 39) / 100 for i in range(40))
    NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
    ONE = (
        "A special magic {kind} is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {kind} afterwards.\n{context}\n"
        "What is the special magic {kind} for {key} mentioned in the provided text? "
        "The special magic {kind} for {key} mentioned in the provided text is"
    )
    SOME = (
        "Some special magic {kind}s are hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {kind}s afterwards.\n{context}\n"
        "What are all the special magic {kind}s for {key} mentioned in the provided text? "
        "The special magic {kind}s for {key} mentioned in the provided text are"
    )
    PROBE = 32  # words or lines on which tokens are counted to guess how many fit
    SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

    def __init__(self, corpus: str, words: Words, values: str | None = None, tokenizer: Tokenizer = BYTES) -> None:
        kinds = {"words": Word(tuple(words)), "numbers": Number(7), "uuids": Uuid()}
        super().__init__(corpus, kinds, values, tokenizer)

    def minimum(self, variant: str) -> int:
        """Tokens of the longest sample with one line or one word of haystack, and of the generation."""
        shape = VARIANTS[variant]
        key, value = self.longest(self.kinds[shape.key]), self.longest(self.values[variant])
        if shape.haystack == "books":
            context = "x" * max(self.haystack(split, variant).longest_word for split in SHARES)
        else:
            context = NOISE if shape.haystack == "noise" else self.line(variant, key, value)
        needles = [Needle(key, value, 0.0)] * (shape.keys * shape.values)
        text = self._prompt(variant, needles, (key,) * shape.queries, context)
        return len(self.tokenizer.encode(text)) + self.GENERATION

    def generation(self, variant: str) -> int:
        """RULER's 128 tokens."""
        return self.GENERATION

    def spoken(self, values: tuple[str, ...]) -> str:
        return " " + _listed(values)

    def line(self, variant: str, key: str, value: str) -> str:
        return self.NEEDLE.format(kind=self.values[variant].kind, key=key, value=value)

    def draw(self, stream: Random, split: str, variant: str, length: int, depth: float | None = None) -> Sample:
        """A sample of at most `length` tokens, generation included, with the largest haystack."""
        shape, pairs = VARIANTS[variant], self.pairs(stream, split, variant)
        keys = tuple(dict.fromkeys(key for key, _ in pairs[: shape.asked]))
        books = shape.haystack == "books"
        first = stream.randrange(len(self.haystack(split, variant).word_starts)) if books else 0
        if depth is None:
            depth = stream.choice(self.DEPTHS) if books else stream.random()
        others = stream.sample([d for d in self.DEPTHS if d != depth], len(pairs) - 1)
        needles, asked = self.placed(pairs, [depth, *others], shape)
        distractors: list[str] = []

        def written(count: int) -> np.ndarray:
            if books:
                context = self.haystack(split, variant).words(first, count)
            elif shape.haystack == "noise":
                context = "\n".join([NOISE] * count)
            else:
                while len(distractors) < count:
                    distractors.append(self.distractor(stream, variant, keys))
                context = "\n".join(distractors[:count])
            return self.tokenizer.encode(self._prompt(variant, needles, keys, context))

        near = None if self.tokenizer is BYTES else self._guess(written, length)
        prompt = written(largest(lambda count: len(written(count)) + self.GENERATION <= length, near=near))
        if len(prompt) + self.GENERATION > length:  # longer in tokens than those that told the minimum
            return self.draw(stream, split, variant, length, depth)
        values = tuple(needle.value for needle in asked)
        return Sample(prompt, ended(self.tokenizer, self.spoken(values)), keys, values, first)

    def _guess(self, written: Callable[[int], np.ndarray], length: int) -> int:
        """About how many words or lines fit, as encoding a long text many times would take long."""
        short, long = len(written(1)), len(written(1 + self.PROBE))
        return max(1, int((length - self.GENERATION - short) * self.PROBE / max(1, long - short)))

    def _prompt(self, variant: str, needles: list[Needle], keys: tuple[str, ...], context: str) -> str:
        """RULER's insertion: among lines a line, never the last; in prose before a sentence, stray blanks included."""
        shape, parts = VARIANTS[variant], []
        pieces = self.SENTENCE_END.split(context) if shape.haystack == "books" else context.split("\n")
        done = 0
        for key, value, depth in needles:
            line, place = self.line(variant, key, value), int(depth * len(pieces))
            if shape.haystack == "books":
                parts += [" ".join(pieces[done:place]), line]
            else:
                place = min(place, len(pieces) - 1)
                parts += [*pieces[done:place], line]
            done = place
        template = self.ONE if shape.asked == 1 else self.SOME
        text = (
            " ".join([*parts, " ".join(pieces[done:])])
            if shape.haystack == "books"
            else "\n".join([*parts, *pieces[done:]])
        )
        return template.format(kind=self.values[variant].kind, context=text, key=_listed(keys))


def _listed(items: tuple[str, ...]) -> str:
    """As RULER lists several keys: "a, b, and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + ", and " + items[-1]
