"""RULER's own template of the needle (Hsieh et al., arXiv 2404.06654): the wording beside which printed numbers stand."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tasks.needle.fitting import largest
from tasks.needle.haystack import NOISE
from tasks.needle.places import sentence_starts, splitter
from tasks.needle.template import SHARES, HiddenPair, NeedleSample, NeedleTemplate
from tasks.needle.values import Number, Uuid, Word
from tasks.needle.variants import VARIANTS
from tasks.needle.words import Words
from tasks.text.tokenizer import BYTES, Tokenizer, apart, ended


class Ruler(NeedleTemplate):
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

    def __init__(self, corpus: str, words: Words, values: str | None = None, tokenizer: Tokenizer = BYTES) -> None:
        kinds = {"words": Word(tuple(words)), "numbers": Number(7), "uuids": Uuid()}
        super().__init__(corpus, kinds, values, tokenizer)
        self.splitter = splitter()

    def minimum(self, variant: str) -> int:
        """Tokens of the longest sample with one line or one word of haystack, and of the generation."""
        shape = VARIANTS[variant]
        key, value = self.longest(self.kinds[shape.key]), self.longest(self.values[variant])
        if shape.haystack == "books":
            context = "x" * max(self.haystack(split, variant).longest_word for split in SHARES)
        else:
            context = NOISE if shape.haystack == "noise" else self.line(variant, key, value)
        needles = [HiddenPair(key, value, 0.0)] * (shape.keys * shape.values)
        text = self._prompt(variant, needles, (key,) * shape.queries, context)
        return len(self.tokenizer.encode(text)) + self.generation(variant)

    def generation(self, variant: str) -> int:
        """RULER's 128 tokens, or as many more as the longest right answer has."""
        longest = self.spoken((self.longest(self.values[variant]),) * VARIANTS[variant].asked)
        return max(self.GENERATION, len(ended(self.tokenizer, longest)))

    def spoken(self, values: tuple[str, ...]) -> str:
        return " " + _listed(values)

    def line(self, variant: str, key: str, value: str) -> str:
        return self.NEEDLE.format(kind=self.values[variant].kind, key=key, value=value)

    def _drawn(self, stream: Random, split: str, variant: str, length: int, depth: float | None) -> NeedleSample | None:
        """A sample of at most `length` tokens, generation included, with the largest haystack.

        Without a depth it lies as RULER's do: in prose at one of 40, among lines at any.
        """
        shape, pairs = VARIANTS[variant], self.pairs(stream, split, variant)
        keys = tuple(dict.fromkeys(key for key, _ in pairs[: shape.asked]))
        books = shape.haystack == "books"
        first = stream.randrange(len(self.haystack(split, variant).word_starts)) if books else 0
        if depth is None:
            depth = stream.choice(self.DEPTHS) if books else stream.random()
        others = stream.sample([d for d in self.DEPTHS if d != depth], len(pairs) - 1)
        needles, asked = self.placed(pairs, [depth, *others], shape)
        distractors: list[str] = []

        def written(count: int, splitter: str = "own") -> str:
            if books:
                context = self.haystack(split, variant).words(first, count)
            elif shape.haystack == "noise":
                context = "\n".join([NOISE] * count)
            else:
                while len(distractors) < count:
                    distractors.append(self.distractor(stream, variant, keys))
                context = "\n".join(distractors[:count])
            return self._prompt(variant, needles, keys, context, splitter)

        def tokens(count: int) -> int:
            return len(self.tokenizer.encode(written(count)))

        room = length - self.generation(variant)
        near = None if self.tokenizer is BYTES else self._guess(tokens, room)
        count = largest(lambda count: tokens(count) <= room, near=near)
        values = tuple(needle.value for needle in asked)
        for fewer in range(min(count, len(pairs) + 1)):  # where sentences end changes the length by some blanks
            both = apart(self.tokenizer, written(count - fewer, self.splitter), self.spoken(values))
            if both is None or len(both[0]) <= room:
                return both and NeedleSample(*both, keys, values, first)
        return None  # longer in tokens than those that told the minimum

    def _guess(self, tokens: Callable[[int], int], room: int) -> int:
        """About how many words or lines fit, as encoding a long text many times would take long."""
        short, long = tokens(1), tokens(1 + self.PROBE)
        return max(1, int((room - short) * self.PROBE / max(1, long - short)))

    def _prompt(
        self, variant: str, needles: list[HiddenPair], keys: tuple[str, ...], context: str, splitter: str = "own"
    ) -> str:
        """The whole question."""
        shape = VARIANTS[variant]
        text = (
            self._in_prose(variant, needles, context, splitter)
            if shape.haystack == "books"
            else self._among_lines(variant, needles, context.split("\n"))
        )
        template = self.ONE if shape.asked == 1 else self.SOME
        return template.format(kind=self.values[variant].kind, context=text, key=_listed(keys))

    def _in_prose(self, variant: str, needles: list[HiddenPair], context: str, splitter: str) -> str:
        """RULER's insertion before a sentence, stray blanks included."""
        starts, parts, done = [*sentence_starts(context, splitter), len(context)], [], 0
        for key, value, depth in needles:
            place = starts[int(depth * (len(starts) - 1))]
            parts += [context[done:place].removesuffix(" "), self.line(variant, key, value)]
            done = place
        return " ".join([*parts, context[done:]])

    def _among_lines(self, variant: str, needles: list[HiddenPair], lines: list[str]) -> str:
        """RULER's insertion of a line, never the last."""
        parts, done = [], 0
        for key, value, depth in needles:
            place = min(int(depth * len(lines)), len(lines) - 1)
            parts += [*lines[done:place], self.line(variant, key, value)]
            done = place
        return "\n".join([*parts, *lines[done:]])


def _listed(items: tuple[str, ...]) -> str:
    """As RULER lists several keys: "a, b, and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + ", and " + items[-1]
