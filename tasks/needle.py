"""The needle in a haystack: one key and its value are hidden in a long text, and the value is asked for at the end."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from tasks import corpus as corpora
from tasks.evaluate import average
from tasks.floors import sit
from tasks.needle_text import END, VARIANTS, Compact, Ruler, Sample, Template
from tasks.randomness import stream
from tasks.task import IGNORE, Answers, Batch, Exam, Measurement, Task
from tasks.tokenizer import BYTES
from tasks.words import words as word_lists

EXAM_TOKENS = 65536  # at most about as many tokens in one exam
CURRICULUM = 0.9  # share of the budget after which training has reached its full length
STEP = 8  # training lengths are multiples of it, so that few shapes occur
PADDING = 0


class Needle(Task):
    """Needle in a haystack, S-NIAH-1, -2 and -3: exact match and token accuracy by length and depth.

    `template="ruler"` is RULER's own wording, which alone stands beside printed numbers; `compact` is ours, for small
    models from 64 bytes up, and its metrics are named `compact_...`. Lengths are in bytes; `test_lengths` defaults to
    1, 2, 4 and 8 times the training `length`. `samples` are asked for each variant, length and depth. `digits` (4) and
    `uuid_groups` (2 pairs of hexadecimal digits) are the size of compact values; RULER's are fixed. `words` names the
    lists of keys: "own", or "wonderwords" (as RULER) where that package is installed.
    """

    name = "needle"
    protocol = "trained"
    vocab = BYTES.vocab

    def __init__(
        self,
        variants: tuple[str, ...] = VARIANTS,
        template: Literal["compact", "ruler"] = "compact",
        length: int = 128,
        test_lengths: tuple[int, ...] = (),
        depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
        samples: int = 20,
        digits: int | None = None,
        uuid_groups: int | None = None,
        corpus: str = corpora.EMBEDDED,
        words: Literal["own", "wonderwords"] = "own",
    ) -> None:
        unknown = [variant for variant in variants if variant not in VARIANTS]
        if unknown or not variants:
            raise ValueError(f"The needle has no variant {unknown}: choose some of {', '.join(VARIANTS)}.")
        if not depths or not all(0 <= depth <= 1 for depth in depths) or samples < 1:
            raise ValueError("The needle's depths must lie between 0 (first) and 1 (last), and samples be at least 1.")
        self.variants, self.length, self.samples = tuple(variants), length, samples
        self.test_lengths = tuple(test_lengths) or (length, 2 * length, 4 * length, 8 * length)
        self.depths = tuple(float(depth) for depth in depths)
        self.words, self.corpus = words, corpus
        corpora.documents("train", corpus)  # an unreadable corpus is told here, not in the middle of a run
        self.template = self._template(template, digits, uuid_groups)
        minimum = {variant: self.template.minimum(variant) for variant in variants}
        for asked in (length, *self.test_lengths):
            for variant, least in minimum.items():
                if asked < least:
                    raise ValueError(
                        f"The {template} needle {variant} needs a length of at least {least}, not {asked}."
                    )
        self.shortest = max(minimum.values())

    def _template(self, name: str, digits: int | None, uuid_groups: int | None) -> Template:
        lists = word_lists(self.words)
        if name == "compact":
            digits, uuid_groups = 4 if digits is None else digits, 2 if uuid_groups is None else uuid_groups
            if min(digits, uuid_groups) < 1:
                raise ValueError("The needle's digits and uuid_groups must be at least 1.")
            return Compact(self.corpus, lists, digits, uuid_groups)
        if name != "ruler":
            raise ValueError(f"The needle has no template '{name}': choose compact or ruler.")
        if (digits, uuid_groups) != (None, None):
            raise ValueError(
                "RULER's values are fixed: leave out digits and uuid_groups, or choose template='compact'."
            )
        return Ruler(self.corpus, lists)

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Samples of all variants in turn, at one length, log-uniform up to a limit that grows to `length`."""
        draws = stream(self.name, "train", seed, step)
        reach = min(1.0, progress / CURRICULUM) * draws.random()
        length = self.shortest * (self.length / self.shortest) ** reach
        length = min(self.length, STEP * math.ceil(length / STEP))
        rows = [self.variants[(step + row) % len(self.variants)] for row in range(max(1, tokens // length))]
        drawn = [self.template.draw(draws, "train", variant, length) for variant in rows]
        return _batch(drawn, {"length": length})

    def exams(self, split: str) -> Iterator[Exam]:
        """One cell for each variant, length and depth; rows of equal shape share an exam."""
        if split not in ("validation", "test"):
            raise ValueError(f"There is no exam '{split}': ask for validation or test.")
        for variant in self.variants:
            for length in self.test_lengths if split == "test" else (self.length,):
                for depth in self.depths:
                    yield from self._cell(split, variant, length, depth)

    def _cell(self, split: str, variant: str, length: int, depth: float) -> Iterator[Exam]:
        draws = stream(self.name, split, variant, length, depth)
        haystack = self.template.haystack_label(variant)
        where = {"variant": variant, "length": length, "depth": depth, "haystack": haystack, "unit": BYTES.name}
        by_shape: dict[tuple[int, int], list[Sample]] = {}
        for _ in range(self.samples):
            sample = self.template.draw(draws, split, variant, length, depth)
            by_shape.setdefault((len(sample.prompt), len(sample.answer)), []).append(sample)
        rows = max(1, EXAM_TOKENS // length)
        for (prompt, _), samples in by_shape.items():
            for i in range(0, len(samples), rows):
                batch = _batch(samples[i : i + rows], where)
                yield Exam(batch, prompt, generate=self.template.generation(variant), stop=ord(END))

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """Teacher-forced and generated answers; the terminator must be learned but is not marked."""
        hits = answers.hit[:, exam.prompt - 1 : -1]
        yield self._measurement("exact_match", hits.all(1), exam)
        yield self._measurement("answer_token_accuracy", hits, exam)
        if answers.text is None:
            return
        values = [BYTES.decode(self.truth(exam, row)).strip() for row in range(len(hits))]
        texts = [BYTES.decode(text) for text in answers.text]
        if isinstance(self.template, Ruler):
            found = [value.lower() in text.lower() for value, text in zip(values, texts, strict=True)]
            yield self._measurement("string_match", torch.tensor(found), exam)
        else:
            found = [value == text for value, text in zip(values, texts, strict=True)]
            yield self._measurement("generated_match", torch.tensor(found), exam)

    def _measurement(self, metric: str, right: torch.Tensor, exam: Exam) -> Measurement:
        name = self.template.metric_prefix + metric
        return Measurement(name, right.double().mean().item(), right.numel(), exam.batch.where)

    def floors(self) -> dict[str, list[Measurement]]:
        """Guessing a value of the right form, computed, and copying the only value, run on the test's prompts."""
        guessed = [m for exam in self.exams("test") for m in self._guess(exam)]
        return {
            "floor: uniform digits": average(guessed),
            "cheat: copy the only number": sit(self, partial(_copy, self.template)),
        }

    def _guess(self, exam: Exam) -> Iterator[Measurement]:
        """The expected marks of the best guesser who knows the form of the answer."""
        chances = self.template.values[exam.batch.where["variant"]].chances()
        certain = exam.batch.tokens.shape[1] - exam.prompt - len(chances)
        chances = [1.0] * certain + chances
        for m in self.mark(exam, self.oracle(exam)):
            mean = m.metric.endswith("answer_token_accuracy")
            yield m._replace(value=sum(chances) / len(chances) if mean else math.prod(chances))

    def data_hash(self) -> str:
        """Of the corpus and the word lists."""
        both = corpora.data_hash(self.corpus) + word_lists(self.words).hash()
        return hashlib.sha256(both.encode()).hexdigest()


def _copy(template: Template, exam: Exam) -> Answers:
    """The answers of somebody who copies what stands where values stand, without reading the key."""
    prompts, targets = exam.batch.tokens[:, : exam.prompt].numpy(), exam.batch.targets
    pattern = re.compile(f"(?<={template.sign}){template.values[exam.batch.where['variant']].pattern}")
    asked = targets.shape[1] - exam.prompt + 1
    hit, texts = torch.zeros(targets.shape, dtype=torch.bool), []
    for row, prompt in enumerate(prompts):
        found = pattern.findall(BYTES.decode(prompt))
        # RULER's answers begin with a blank, which anybody can see from the form of the question.
        lead = " " if isinstance(template, Ruler) else ""
        said = torch.from_numpy(BYTES.encode(lead + (found[-1] if found else "") + END)[:asked].astype(np.int64))
        places = slice(exam.prompt - 1, exam.prompt - 1 + len(said))
        hit[row, places] = targets[row, places] == said
        texts.append(tuple(said[:-1].tolist()))
    return Answers(torch.zeros(targets.shape), hit, None, tuple(texts))


def _batch(samples: list[Sample], where: dict[str, Any]) -> Batch:
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
