"""Language modelling: every token of a text is guessed from the tokens before it, and marked by the bytes it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks import corpus as corpora
from tasks import tokenizer as tokenizers
from tasks.evaluate import average
from tasks.ngram import Bigram, ByBytes, Floor, Trigram, Uniform, Unigram
from tasks.position_bins import doubling
from tasks.randomness import generator
from tasks.task import IGNORE, Answers, Batch, Exam, Measurement, Task
from tasks.tokenizer import BYTES, Text, encoded

EXAM_TOKENS = 16384  # about as many tokens in one exam
BITS, AT_POSITION = "bits_per_token", "_at_position"
LARGEST_EXPONENT = 1000  # a perplexity beyond 2 to this is left out: it is no finite number


class Span(NamedTuple):
    """`size` scored tokens of a text, from `start` on; the token before `start` is the first input."""

    text: int
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
        separator = self.tokenizer.separator
        self.beginning = self.tokenizer.vocab if separator is None else separator
        self.vocab = max(self.tokenizer.vocab, self.beginning + 1)
        self._begun: dict[str, tuple[np.ndarray, ...]] = {}
        self._counted: dict[str, tuple[Text, ...]] = {}
        for split, needed in (("train", length), ("validation", length), ("test", max(self.test_lengths))):
            self._check_longest(split, needed)

    def _check_longest(self, split: str, needed: int) -> None:
        longest = max(map(len, self._tokens(split))) - 1
        if longest < needed:
            unit = "bytes" if self.tokenizer is BYTES else f"tokens of {self.tokenizer.name}"
            raise ValueError(
                f"The longest {split} text of '{self.corpus}' holds windows of at most {longest} {unit}, not {needed}: "
                "choose a shorter length, a corpus of longer texts, or cross_documents=true."
            )

    def _tokens(self, split: str) -> tuple[np.ndarray, ...]:
        """The tokens of every text of a split, each document after the beginning: of each, or of all in one."""
        if split not in self._begun:
            groups = self._grouped(encoded(split, self.corpus, self.tokenizer))
            self._begun[split] = tuple(tokenizers.with_separators(group, self.beginning) for group in groups)
        return self._begun[split]

    def _texts(self, split: str) -> tuple[Text, ...]:
        """The same with the bytes and words of every token."""
        if split not in self._counted:
            groups = self._grouped(tokenizers.texts(split, self.corpus, self.tokenizer))
            self._counted[split] = tuple(tokenizers.joined(group, self.beginning) for group in groups)
        return self._counted[split]

    def _grouped(self, documents: Sequence[Any]) -> list[Sequence[Any]]:
        """The documents that make one text."""
        return [documents] if self.cross_documents else [(document,) for document in documents]

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows drawn uniformly over all places of the training texts; `progress` changes nothing."""
        texts, rows = self._tokens("train"), max(1, tokens // self.length)
        ends = np.cumsum([max(0, len(text) - self.length) for text in texts])
        places = generator(self.name, "train", seed, step).integers(ends[-1], size=rows)
        books = np.searchsorted(ends, places, side="right")
        starts = places - np.concatenate(([0], ends[:-1]))[books]
        windows = [texts[b][s : s + self.length + 1] for b, s in zip(books, starts, strict=True)]
        return self._batch(windows, {"length": self.length})

    def _batch(self, windows: list[np.ndarray], where: dict) -> Batch:
        rows = torch.from_numpy(np.stack(windows).astype(np.int64))
        targets = rows[:, 1:].contiguous()
        if self.cross_documents:
            targets = targets.masked_fill(targets == self.beginning, IGNORE)
        return Batch(rows[:, :-1].contiguous(), targets, where)

    def exams(self, split: str) -> Iterator[Exam]:
        """Consecutive windows that overlap by one token; rows of one exam are equally long."""
        return (exam for exam, _ in self._exams(split))

    def _exams(self, split: str) -> Iterator[tuple[Exam, list[Span]]]:
        """Every exam with the place of each of its rows."""
        texts = self._texts(split)
        lengths = self.test_lengths if split == "test" else (self.length,)
        for length in lengths:
            by_size: dict[int, list[Span]] = {}
            for span in self.spans(split, max(lengths)):
                for start in range(span.start, span.start + span.size, length):
                    size = min(length, span.start + span.size - start)
                    by_size.setdefault(size, []).append(Span(span.text, start, size))
            for size, spans in by_size.items():
                rows = max(1, EXAM_TOKENS // size)
                for i in range(0, len(spans), rows):
                    yield self._exam(texts, spans[i : i + rows], length), spans[i : i + rows]

    def _exam(self, texts: tuple[Text, ...], spans: list[Span], length: int) -> Exam:
        where = {"length": length, "unit": self.tokenizer.name}
        batch = self._batch([texts[i].tokens[start - 1 : start + size] for i, start, size in spans], where)
        bytes = np.stack([np.diff(texts[i].ends[start - 1 : start + size]) for i, start, size in spans])
        words = np.stack([texts[i].words[start : start + size] for i, start, size in spans])
        return Exam(batch, bytes=torch.from_numpy(bytes), words=torch.from_numpy(words))

    def spans(self, split: str, block: int) -> list[Span]:
        """The scored tokens of a split: blocks of `block` tokens spread evenly, or everything with ragged ends."""
        texts, limit = self._texts(split), self.bytes[split]
        every = [
            Span(i, start, min(block, len(text.tokens) - start))
            for i, text in enumerate(texts)
            for start in range(1, len(text.tokens), block)
        ]
        full, tokens = [span for span in every if span.size == block], sum(span.size for span in every)
        scored = sum(int(text.ends[-1] - text.ends[0]) for text in texts)  # bytes
        count = max(1, limit * tokens // (block * scored))
        if limit == 0 or limit >= scored:
            return every
        return [full[i * len(full) // count] for i in range(count)] if count < len(full) else full

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
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
        train, validation = encoded("train", self.corpus), encoded("validation", self.corpus)
        bigram = Bigram(train, validation)
        models = {
            "floor: uniform": Uniform(self.vocab),
            "floor: unigram": ByBytes(Unigram(train)),
            f"floor: bigram, add-{bigram.k:g}": ByBytes(bigram),
            "reference: trigram, Witten-Bell": ByBytes(Trigram(train)),
        }
        texts = self._texts("test")
        return {name: self._sat(model, texts) for name, model in models.items()}

    def _sat(self, model: Floor, texts: tuple[Text, ...]) -> list[Measurement]:
        """What a floor scores on the test."""
        marks: list[Measurement] = []
        for exam, spans in self._exams("test"):
            rows = torch.from_numpy(np.stack([model(texts[i], start, size) for i, start, size in spans]))
            marks += self.mark(exam, Answers(rows, torch.zeros(rows.shape, dtype=torch.bool)))
        return self.finish(average(marks))

    def data_hash(self) -> str:
        """Of the corpus, and of a tokenizer other than bytes."""
        return tokenizers.combined_hash(corpora.data_hash(self.corpus), self.tokenizer)


def _per_token(exam: Exam, bits: Tensor, part: slice, where: dict[str, Any], ending: str) -> Iterator[Measurement]:
    """Means over the asked tokens of a part of the places."""
    count = int((exam.batch.targets[:, part] != IGNORE).sum())
    for kind, amounts in (("bits", bits), ("bytes", exam.bytes.double()), ("words", exam.words.double())):
        if count:
            yield Measurement(f"{kind}_per_token{ending}", amounts[:, part].sum().item() / count, count, where)
