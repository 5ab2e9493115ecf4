"""Language modelling: every token of a text is guessed from the tokens before it, and scored by the bytes it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.harness.evaluate import average
from tasks.language_modelling.ngram import Bigram, ByBytes, Floor, Trigram, Uniform, Unigram
from tasks.rng import generator
from tasks.task import IGNORE, Answers, Batch, EvaluationBatch, Measurement, Task, doubling
from tasks.text import corpus as corpora
from tasks.text import tokenizer as tokenizers
from tasks.text.ragged_array import Parted
from tasks.text.tokenizer import BYTES, Text, encoded

EXAM_TOKENS = 16384  # about as many tokens in one evaluation batch
BITS, AT_POSITION = "bits_per_token", "_at_position"
LARGEST_EXPONENT = 1000  # a perplexity beyond 2 to this is left out: it is no finite number


class Span(NamedTuple):
    """`size` scored tokens of all texts of a split in one, from `start` on; the token before is the first input."""

    start: int
    size: int


class LanguageModelling(Task):
    """Language modelling of books, or of any text: bits per byte, perplexity, and loss by position in the window.

    Every document is read after the tokenizer's token that parts texts (or one more, where it has none), so that its
    first token is guessed as well; that token is never asked. A window of `length` + 1 tokens scores `length` tokens and
    never crosses a document, unless `cross_documents` makes the documents of a split one text. All `test_lengths` (default
    `length` and four times it; to 64 times it and beyond) score the same tokens, each exactly once: blocks with about
    `test_bytes` bytes, spread evenly over the test texts; 0 scores every byte of every text.
    `validation_bytes` likewise, at `length` alone. `tokenizer` is bytes, bpe:SIZE (trained on the training texts), gpt2
    or the path of a `tokenizers` JSON; lengths count its tokens.

    `bits_per_byte` counts the bytes that the scored tokens stand for, whatever the tokenizer; `perplexity` is per token;
    `word_perplexity` is e to the negative log-likelihood per word, with words counted between runs of white space, as
    lm-evaluation-harness does, which begins a text after a token too (a word counts where it ends).

    >>> print(aligned(create("language-modelling", length=64)))
    ~Persuasion||by||Jane Austen||(1818)||Chapter 1||Sir Walter Elli
    Persuasion||by||Jane Austen||(1818)||Chapter 1||Sir Walter Ellio
    """

    name = "language-modelling"
    exam_settings = ("test_lengths", "test_bytes", "validation_bytes")
    protocol = "trained"

    def __init__(
        self,
        corpus: str = corpora.EMBEDDED,
        length: int = 256,
        test_lengths: tuple[int, ...] = (),
        test_bytes: int = 65536,
        validation_bytes: int = 16384,
        tokenizer: str = tokenizers.DEFAULT,
        cross_documents: bool = False,
    ) -> None:
        self.corpus, self.length, self.cross_documents = corpus, length, cross_documents
        self.test_lengths = tuple(sorted(set(test_lengths))) or (length, 4 * length)
        self.bytes = {"test": test_bytes, "validation": validation_bytes}
        if min(length, *self.test_lengths) < 1 or min(self.bytes.values()) < 0:
            raise ValueError("Lengths of language-modelling must be at least 1, and numbers of bytes at least 0.")
        self.tokenizer = tokenizers.create(tokenizer, corpus)
        self.beginning = tokenizers.beginning(self.tokenizer)
        self.vocab = max(self.tokenizer.vocab, self.beginning + 1)
        for split, needed in (("train", length), ("validation", length), ("test", max(self.test_lengths))):
            self._check_longest(split, needed)

    def _check_longest(self, split: str, needed: int) -> None:
        longest = int(np.diff(self._bounds(split)).max(initial=0)) - 1
        if longest < needed:
            unit = "bytes" if self.tokenizer is BYTES else f"tokens of {self.tokenizer.name}"
            raise ValueError(
                f"The longest {split} text of '{self.corpus}' holds windows of at most {longest} {unit}, not {needed}: "
                "choose a shorter length, a corpus of longer texts, or cross_documents=true."
            )

    def _tokens(self, split: str) -> Parted:
        """The tokens of every document of a split, each after the beginning."""
        return encoded(split, self.corpus, self.tokenizer)

    def _bounds(self, split: str) -> np.ndarray:
        """Where each text begins in all texts of a split in one, and where the last ends: a document, or all, is a text."""
        starts = self._tokens(split).starts
        return starts[[0, -1]] if self.cross_documents else starts

    @cached_property
    def _places(self) -> np.ndarray:
        """How many places a training window has in the texts before each, and in all, [texts + 1]."""
        return np.concatenate(([0], np.cumsum(np.maximum(np.diff(self._bounds("train")) - self.length, 0))))

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows drawn uniformly over all places of the training texts; `progress` changes nothing."""
        flat, bounds, before = self._tokens("train").flat, self._bounds("train"), self._places
        places = generator(self.name, "train", seed, step).integers(before[-1], size=max(1, tokens // self.length))
        books = np.searchsorted(before, places, side="right") - 1
        starts = bounds[books] + places - before[books]
        windows = [flat[start : start + self.length + 1] for start in starts]
        return self._batch("train", windows, starts + 1, {"length": self.length})

    def _batch(self, split: str, windows: list[np.ndarray], firsts: Sequence[int], where: dict) -> Batch:
        """Windows of a split whose first targets lie at the places `firsts` of all its texts in one."""
        rows = torch.from_numpy(np.stack(windows).astype(np.int64))
        targets = rows[:, 1:].contiguous()
        if self.cross_documents:
            targets = targets.masked_fill(torch.from_numpy(self._parting(split, firsts, targets.shape[1])), IGNORE)
        return Batch(rows[:, :-1].contiguous(), targets, where)

    def _parting(self, split: str, firsts: Sequence[int], size: int) -> np.ndarray:
        """Whether each of `size` tokens from each place on parts two texts, bool [firsts, size].

        Told by where documents begin: a text may hold the same token, as a byte 0 or a written <|endoftext|>.
        """
        starts = self._tokens(split).starts[:-1]
        places = np.asarray(firsts)[:, None] + np.arange(size)
        following = np.minimum(np.searchsorted(starts, places), len(starts) - 1)
        return starts[following] == places

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """Consecutive windows that overlap by one token; rows of one evaluation batch are equally long."""
        return (exam for exam, _ in self._exams(split))

    def _exams(self, split: str) -> Iterator[tuple[EvaluationBatch, list[Span]]]:
        """Every evaluation with the place of each of its rows."""
        lengths = self.test_lengths if split == "test" else (self.length,)
        for length in lengths:
            by_size: dict[int, list[Span]] = {}
            for span in self.spans(split, max(lengths)):
                for start in range(span.start, span.start + span.size, length):
                    size = min(length, span.start + span.size - start)
                    by_size.setdefault(size, []).append(Span(start, size))
            for size, spans in by_size.items():
                rows = max(1, EXAM_TOKENS // size)
                for i in range(0, len(spans), rows):
                    yield self._exam(split, spans[i : i + rows], length), spans[i : i + rows]

    def _exam(self, split: str, spans: list[Span], length: int) -> EvaluationBatch:
        found = [self._around(split, span) for span in spans]
        batch = self._batch(
            split,
            [text.tokens[start - 1 : start + size] for text, start, size in found],
            [span.start for span in spans],
            {"length": length, "unit": self.tokenizer.name},
        )
        bytes = np.stack([np.diff(text.ends[start - 1 : start + size]) for text, start, size in found])
        words = np.stack([text.words[start : start + size] for text, start, size in found])
        return EvaluationBatch(batch, bytes=torch.from_numpy(bytes), words=torch.from_numpy(words))

    def _around(self, split: str, span: Span) -> tuple[Text, int, int]:
        """The documents that a span and the token before it lie in, where it starts in them, and its size."""
        starts, ends = self._tokens(split).starts, (span.start - 1, span.start + span.size - 1)
        first, last = (int(np.searchsorted(starts, place, side="right")) - 1 for place in ends)
        text = tokenizers.text(split, self.corpus, self.tokenizer, first, last)
        return text, span.start - int(starts[first]), span.size

    def spans(self, split: str, block: int) -> list[Span]:
        """The scored tokens of a split: blocks of `block` tokens spread evenly, or everything with ragged ends."""
        bounds, limit = self._bounds(split), self.bytes[split]
        tokens, full = np.diff(bounds) - 1, (np.diff(bounds) - 1) // block
        scored, blocks = int(corpora.texts(split, self.corpus).lengths.sum()), int(full.sum())  # bytes; of full size
        if limit == 0 or limit >= scored:
            return [
                Span(start, min(block, end - start))
                for begin, end in pairwise(bounds.tolist())
                for start in range(begin + 1, end, block)
            ]
        count = min(blocks, max(1, limit * int(tokens.sum()) // (block * scored)))
        picked = np.arange(count) * blocks // max(1, count)
        texts = np.searchsorted(np.cumsum(full), picked, side="right")
        before = np.concatenate(([0], np.cumsum(full)))[texts]
        return [Span(start, block) for start in (bounds[texts] + 1 + (picked - before) * block).tolist()]

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """Bits, bytes and words per token; over the longest test windows also by position, in bins that double.

        They are means over tokens, so that they average exactly; `finish` turns them into bits per byte and the like.
        """
        where, asked = exam.batch.where, exam.batch.targets != IGNORE
        bits = (answers.log_probability.double() / -math.log(2)).masked_fill(~asked, 0.0)
        yield from _per_token(exam, bits, slice(None), where, "")
        if where["length"] != max(self.test_lengths):
            return
        for start, end in doubling(bits.shape[1]):
            # The last bin is named by the window's end; a ragged window shares the names of the full ones.
            place = {"from": start, "to": min(end, where["length"]), "unit": where["unit"]}
            yield from _per_token(exam, bits, slice(start, end), place, AT_POSITION)

    def finish(self, measurements: list[Measurement]) -> list[Measurement]:
        """Bits per byte, by position too, and perplexity per token and per word: 2 to the bits of each."""
        found = {(m.metric, *m.where.items()): m.value for m in measurements}
        marks, exponents = [], []
        for m in measurements:
            if not m.metric.startswith(BITS):
                continue
            ending = m.metric.removeprefix(BITS)
            bytes, words = (found[(f"{kind}_per_token{ending}", *m.where.items())] for kind in ("bytes", "words"))
            if bytes:
                marks.append(Measurement(f"bits_per_byte{ending}", m.value / bytes, round(bytes * m.count), m.where))
            if ending:
                continue
            marks += [m] if self.tokenizer is not BYTES else []
            exponents.append(m._replace(metric="perplexity"))
            if words:
                exponents.append(Measurement("word_perplexity", m.value / words, round(words * m.count), m.where))
        return marks + [m._replace(value=2**m.value) for m in exponents if m.value < LARGEST_EXPONENT]

    def floors(self) -> dict[str, list[Measurement]]:
        """A uniform choice of tokens, and models that count the training texts' bytes, on exactly what the test scores."""
        train, validation = corpora.texts("train", self.corpus), corpora.texts("validation", self.corpus)
        bigram = Bigram(train, validation)
        models = {
            "floor: uniform": Uniform(self.vocab),
            "floor: unigram": ByBytes(Unigram(train)),
            f"floor: bigram, add-{bigram.k:g}": ByBytes(bigram),
            "reference: trigram, Witten-Bell": ByBytes(Trigram(train)),
        }
        return {name: self._sat(model) for name, model in models.items()}

    def _sat(self, model: Floor) -> list[Measurement]:
        """What a trivial baseline scores on the test."""
        marks: list[Measurement] = []
        for exam, spans in self._exams("test"):
            rows = torch.from_numpy(np.stack([model(*self._around("test", span)) for span in spans]))
            marks += self.mark(exam, Answers(rows, torch.zeros(rows.shape, dtype=torch.bool)))
        return self.finish(average(marks))

    def data_hash(self) -> str:
        """Of the corpus, and of a tokenizer other than bytes."""
        return tokenizers.combined_hash(corpora.data_hash(self.corpus), self.tokenizer)


def _per_token(
    exam: EvaluationBatch, bits: Tensor, part: slice, where: dict[str, Any], ending: str
) -> Iterator[Measurement]:
    """Means over the asked tokens of a part of the places."""
    count = int((exam.batch.targets[:, part] != IGNORE).sum())
    for kind, amounts in (("bits", bits), ("bytes", exam.bytes.double()), ("words", exam.words.double())):
        if count:
            yield Measurement(f"{kind}_per_token{ending}", amounts[:, part].sum().item() / count, count, where)
