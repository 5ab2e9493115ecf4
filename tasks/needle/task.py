"""The needle in a haystack: one key and its value are hidden in a long text, and the value is asked for at the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

from tasks.harness.evaluate import average
from tasks.needle.compact import Compact
from tasks.needle.readers import asked_keys, copies, reads_the_last_tenth, says_what_was_never_trained
from tasks.needle.ruler import Ruler
from tasks.needle.template import END, NeedleSample, NeedleTemplate
from tasks.needle.variants import SINGLE, VARIANTS
from tasks.needle.words import installed as word_lists_installed
from tasks.needle.words import words as word_lists
from tasks.rng import stream
from tasks.task import IGNORE, Answers, Batch, EvaluationBatch, Measurement, Task
from tasks.text import corpus as corpora
from tasks.text.tokenizer import DEFAULT, combined_hash, create, reversible, separable

COMPACT_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LONGEST, MOST_SAMPLES, MOST_DIGITS = 2**30, 10**6, 64  # beyond these a setting is a slip of the pen
EXAM_TOKENS = 65536  # at most about as many tokens in one evaluation batch
CURRICULUM = 0.9  # share of the budget after which training has reached its full length
STEP = 8  # training lengths are multiples of it, so that few shapes occur
PADDING = 0


class Needle(Task):
    """Needle in a haystack, the eight variants of RULER: exact match and token accuracy by length and depth.

    `template="ruler"` is RULER's own wording, which alone stands beside printed numbers; `compact` is ours, for small
    models from 64 bytes up (mv-niah from 74, mq-niah from 92; with `key_letters=4` and `digits=1` these too), and its metrics
    are named `compact_...`. Lengths are in tokens of `tokenizer` (bytes, bpe:SIZE, gpt2 or the path of a JSON); `test_lengths`
    defaults to 1, 2, 4 and 8 times the training `length`. `samples` are asked for each variant, length and depth; with RULER's
    own depths (its default: one of 40 for each question in prose, any place among lines) for each variant and length. The
    compact five are 0, 0.25, 0.5, 0.75 and 1, of which 1 is the very end, where a reader of the last words answers. `digits`
    (4) and `uuid_groups` (2 pairs of hexadecimal digits) are the size of compact values and `key_letters` (5) of keys; RULER's
    are fixed. `words` names the lists of keys: "own" (compact), or "wonderwords" (as RULER, whose template takes these where
    that package is installed). `values` overrides what every
    variant hides: words, numbers or uuids (the Titans paper's S-NIAH-W has two readings, uuids and words). Of several
    needles that are asked, one lies at `depth` and the others anywhere; `string_match` is the share of them that is
    named, and exact match asks for all.

    >>> print(aligned(create("needle", length=64, depths=(0.5,))))
     back again. The |pearl=1809|grass is green. The sky |pearl=1809
    ___________________________________________________________1809|
    """

    name = "needle"
    exam_settings = ("test_lengths", "depths", "samples")
    protocol = "trained"

    def __init__(
        self,
        variants: tuple[str, ...] = SINGLE,
        template: Literal["compact", "ruler"] = "compact",
        length: int = 128,
        test_lengths: tuple[int, ...] = (),
        depths: tuple[float, ...] = (),
        samples: int = 20,
        digits: int | None = None,
        uuid_groups: int | None = None,
        key_letters: int | None = None,
        corpus: str = corpora.EMBEDDED,
        words: Literal["", "own", "wonderwords"] = "",
        values: Literal["words", "numbers", "uuids"] | None = None,
        tokenizer: str = DEFAULT,
    ) -> None:
        unknown = [variant for variant in variants if variant not in VARIANTS]
        if unknown or not variants:
            raise ValueError(f"The needle has no variant {unknown}: choose some of {', '.join(VARIANTS)}.")
        if not all(0 <= depth <= 1 for depth in depths) or not 1 <= samples <= MOST_SAMPLES:
            raise ValueError(
                "The needle's depths must lie between 0 (first) and 1 (last), and samples be at least 1 and at most "
                f"{MOST_SAMPLES:,}."
            )
        for setting, asked in (("variants", variants), ("test_lengths", test_lengths), ("depths", depths)):
            if len(set(asked)) < len(asked):
                raise ValueError(
                    f"The needle's {setting} name something twice, which would count twice: {list(asked)}."
                )
        self.variants, self.length, self.samples = tuple(variants), length, samples
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        if max(self.test_lengths) > LONGEST or length > LONGEST:
            raise ValueError(f"The needle's lengths must be at most {LONGEST:,} tokens.")
        self.depths = tuple(float(depth) for depth in depths) or (COMPACT_DEPTHS if template == "compact" else (None,))
        self.words = words or ("wonderwords" if template == "ruler" and word_lists_installed() else "own")
        self.corpus, self.values = corpus, values
        corpora.documents("train", corpus)  # an unreadable corpus is told here, not in the middle of a run
        self.tokenizer = reversible(create(tokenizer, corpus), " kiwi=4821, and plum:\nis 3f-a9.", "the needle")
        self.vocab = self.tokenizer.vocab
        self.template = self._template(template, digits, uuid_groups, key_letters)
        before = "kiwi=" if template == "compact" else "in the provided text is"
        separable(self.tokenizer, before, self.template.spoken(("4821",)), "the needle")
        minimum = {variant: self.template.minimum(variant) for variant in variants}
        for asked in (length, *self.test_lengths):
            for variant, least in minimum.items():
                if asked < least:
                    raise ValueError(
                        f"The {template} needle {variant} needs a length of at least {least}, not {asked}."
                    )
        self.shortest = max(minimum.values())

    @property
    def exam_version(self) -> int:
        """2: RULER's own depths, sentences and keys; and pairs of few values that training no longer leaves to the test."""
        parted = all(self.template.parted(variant) for variant in self.variants)
        return 1 if isinstance(self.template, Compact) and parted else 2

    def _template(
        self, name: str, digits: int | None, uuid_groups: int | None, key_letters: int | None
    ) -> NeedleTemplate:
        lists = word_lists(self.words)
        if name == "compact":
            digits, uuid_groups = 4 if digits is None else digits, 2 if uuid_groups is None else uuid_groups
            if not 1 <= min(digits, uuid_groups) <= max(digits, uuid_groups) <= MOST_DIGITS:
                raise ValueError(f"The needle's digits and uuid_groups must be at least 1 and at most {MOST_DIGITS}.")
            letters = Compact.KEY_LETTERS if key_letters is None else key_letters
            return Compact(self.corpus, lists, digits, uuid_groups, self.values, self.tokenizer, letters)
        if name != "ruler":
            raise ValueError(f"The needle has no template '{name}': choose compact or ruler.")
        if (digits, uuid_groups, key_letters) != (None, None, None):
            raise ValueError(
                "RULER's keys and values are fixed: leave out digits, uuid_groups and key_letters, or choose template='compact'."
            )
        return Ruler(self.corpus, lists, self.values, self.tokenizer)

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Samples of all variants in turn, at one length, log-uniform up to a limit that grows to `length`."""
        draws = stream(self.name, "train", seed, step)
        reach = min(1.0, progress / CURRICULUM) * draws.random()
        length = self.shortest * (self.length / self.shortest) ** reach
        length = min(self.length, STEP * math.ceil(length / STEP))
        rows = [self.variants[(step + row) % len(self.variants)] for row in range(max(1, tokens // length))]
        drawn = [self.template.draw(draws, "train", variant, length) for variant in rows]
        return _batch(drawn, {"length": length})

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """One cell for each variant, length and depth; rows of equal shape share an evaluation batch."""
        if split not in ("validation", "test"):
            raise ValueError(f"There is no evaluation '{split}': ask for validation or test.")
        for variant in self.variants:
            for length in self.test_lengths if split == "test" else (self.length,):
                for depth in self.depths:
                    yield from self._cell(split, variant, length, depth)

    def _cell(self, split: str, variant: str, length: int, depth: float | None) -> Iterator[EvaluationBatch]:
        draws = stream(self.name, split, variant, length, depth)
        haystack = self.template.haystack_label(variant)
        where = {
            "variant": variant,
            "length": length,
            "depth": depth,
            "haystack": haystack,
            "unit": self.tokenizer.name,
        }
        if depth is None:  # RULER's own, which no label tells
            del where["depth"]
        if isinstance(self.template, Ruler):
            where |= {"keys": self.words}
            where |= {"sentences": self.template.splitter} if VARIANTS[variant].haystack == "books" else {}
        rows, generation = max(1, EXAM_TOKENS // length), self.template.generation(variant)
        samples = (self.template.draw(draws, split, variant, length, depth) for _ in range(self.samples))
        for together in _equal_shapes(samples) if rows > 1 else ([sample] for sample in samples):
            for i in range(0, len(together), rows):
                batch = _batch(together[i : i + rows], where)
                yield EvaluationBatch(batch, len(together[0].prompt), generate=generation, stop=self.template.stop)

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """Teacher-forced and generated answers; the terminator must be learned but is not scored."""
        hits = answers.hit[:, exam.prompt - 1 : -1]
        yield self._measurement("exact_match", hits.all(1), exam)
        yield self._measurement("answer_token_accuracy", hits, exam)
        if answers.text is None:
            return
        said, compact = [self.tokenizer.decode(text) for text in answers.text], isinstance(self.template, Compact)
        truths = [self.tokenizer.decode(self.truth(exam, row)) for row in range(len(hits))]
        if not compact or VARIANTS[exam.batch.where["variant"]].asked > 1:
            found = [
                [value.lower() in text.lower() for value in self.template.references(truth)]
                for truth, text in zip(truths, said, strict=True)
            ]
            yield self._measurement("string_match", torch.tensor(found).double().mean(1), exam)
        if compact:
            right = [truth == text + END for truth, text in zip(truths, said, strict=True)]
            yield self._measurement("generated_match", torch.tensor(right), exam)

    def _measurement(self, metric: str, right: torch.Tensor, exam: EvaluationBatch) -> Measurement:
        name = self.template.metric_prefix + metric
        return Measurement(name, right.double().mean().item(), right.numel(), exam.batch.where)

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        """The needles of a row's prompt that hold its answer."""
        prompt = self.tokenizer.decode(exam.batch.tokens[row, : exam.prompt].tolist())
        context = prompt.rsplit("\n", 1)[0]
        values = self.template.references(self.tokenizer.decode(self.truth(exam, row)))
        keys = asked_keys(prompt)
        lines = {self.template.line(exam.batch.where["variant"], key, value) for key in keys for value in values}
        return tuple(sorted({line.strip() for line in lines if line.rstrip() in context}, key=context.index))

    def floors(self) -> dict[str, list[Measurement]]:
        """Guessing a value of the right form, computed, and who does not look for the key, run on the test's prompts.

        To copy the only number, or all where all are asked, is what is asked: a reference. Among several keys it is a shortcut
        heuristic, as it is to read the last tenth of the text alone, or to know what was never trained with the key.
        """
        uniform = f"floor: uniform {'words' if self.values == 'words' else 'digits'}"
        found: dict[str, list[Measurement]] = {}
        for exam in self.exams("test"):  # one is held at a time
            found.setdefault(uniform, []).extend(self._guess(exam))
            variant = exam.batch.where["variant"]
            one = "reference: copy the only number" if variant in SINGLE else "cheat: copy the last number"
            ways: dict[str, Callable[[NeedleTemplate, EvaluationBatch], Answers]] = {
                one: partial(copies, most=1),
                "cheat: read the last tenth of the text": reads_the_last_tenth,
                "cheat: a value never trained with this key": says_what_was_never_trained,
            }
            if VARIANTS[variant].asked > 1:
                ways["reference: copy every number"] = partial(copies, most=None)
            for name, way in ways.items():
                found.setdefault(name, []).extend(self.mark(exam, way(self.template, exam=exam)))
        return {name: average(measurements) for name, measurements in found.items()}

    def _guess(self, exam: EvaluationBatch) -> Iterator[Measurement]:
        """The expected scores of the best guesser who knows the form of the answer."""
        rows = [self._chances(exam, row) for row in range(len(exam.batch.tokens))]
        every = [chance for _, chances in rows for chance in chances]
        marks = {
            "answer_token_accuracy": sum(every) / len(every),
            "string_match": sum(sum(products) / len(products) for products, _ in rows) / len(rows),
        }
        whole = sum(math.prod(products) for products, _ in rows) / len(rows)
        for m in self.mark(exam, self.oracle(exam)):
            yield m._replace(value=marks.get(m.metric.removeprefix(self.template.metric_prefix), whole))

    def _chances(self, exam: EvaluationBatch, row: int) -> tuple[list[float], list[float]]:
        """The chances of guessing each value, and each of the answer's tokens; what divides values is certain."""
        truth = self.tokenizer.decode(self.truth(exam, row)).removesuffix(END)
        kind = self.template.values[exam.batch.where["variant"]]
        values, letters, after = self.template.references(truth), [1.0] * len(truth), 0
        for value in values:
            begin = truth.index(value, after)
            after = begin + len(value)
            letters[begin:after] = kind.chances(value)
        ends = np.cumsum(self.tokenizer.byte_counts(truth, np.array(self.truth(exam, row)[:-1])))  # values are ASCII
        tokens = [math.prod(letters[begin:end]) for begin, end in pairwise([0, *ends])]
        return [math.prod(kind.chances(value)) for value in values], tokens

    def data_hash(self) -> str:
        """Of the corpus, the word lists, what parts sentences if it is not ours, and a tokenizer other than bytes."""
        both = corpora.data_hash(self.corpus) + word_lists(self.words).hash()
        if isinstance(self.template, Ruler) and self.template.splitter != "own":
            both += self.template.splitter
        return combined_hash(hashlib.sha256(both.encode()).hexdigest(), self.tokenizer)


def _equal_shapes(samples: Iterable[NeedleSample]) -> Iterable[list[NeedleSample]]:
    """The samples parted by the lengths of their prompts and answers."""
    by_shape: dict[tuple[int, int], list[NeedleSample]] = {}
    for sample in samples:
        by_shape.setdefault((len(sample.prompt), len(sample.answer)), []).append(sample)
    return by_shape.values()


def _batch(samples: list[NeedleSample], where: dict[str, Any]) -> Batch:
    """Prompt and answer without its terminator; the answer is asked, the padding right of short rows is not."""
    width = max(len(sample.prompt) + len(sample.answer) for sample in samples) - 1
    tokens = np.full((len(samples), width), PADDING, np.int64)
    targets = np.full((len(samples), width), IGNORE, np.int64)
    for row, (prompt, answer, *_) in enumerate(samples):
        end = len(prompt) + len(answer) - 1
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : end] = answer[:-1]
        targets[row, len(prompt) - 1 : end] = answer
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), where)
