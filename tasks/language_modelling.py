"""Language modelling: every byte of a book is guessed from the bytes before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks import corpus as corpora
from tasks.floors import sit
from tasks.ngram import Bigram, CountingModel, Trigram, Uniform, Unigram
from tasks.randomness import generator
from tasks.task import Answers, Batch, Exam, Measurement, Task
from tasks.tokenizer import BYTES, encoded

EXAM_TOKENS = 16384  # about as many tokens in one exam
FIRST_BIN = 8  # the positions before this one are one bin; each further bin doubles the position


class Span(NamedTuple):
    """`size` scored bytes of a document, from `start` on; the byte before `start` is the first input."""

    document: int
    start: int
    size: int


class LanguageModelling(Task):
    """Language modelling at byte level: bits per byte, perplexity, and loss by position in the window.

    A window of `length` + 1 bytes scores `length` bytes and never crosses a document. All `test_lengths` (default
    `length` and four times it) score the same `test_bytes` bytes, spread evenly over the test books, each exactly once;
    0 scores every byte but the first of each book. `validation_bytes` likewise, at `length` alone.
    """

    name = "language-modelling"
    protocol = "trained"
    vocab = BYTES.vocab

    def __init__(
        self,
        corpus: str = corpora.EMBEDDED,
        length: int = 256,
        test_lengths: tuple[int, ...] = (),
        test_bytes: int = 65536,
        validation_bytes: int = 16384,
    ) -> None:
        self.corpus, self.length = corpus, length
        self.test_lengths = tuple(sorted(set(test_lengths))) or (length, 4 * length)
        self.bytes = {"test": test_bytes, "validation": validation_bytes}
        if min(length, *self.test_lengths) < 1 or min(self.bytes.values()) < 0:
            raise ValueError("Lengths of language-modelling must be at least 1, and numbers of bytes at least 0.")
        for split, needed in (("train", length), ("validation", length), ("test", max(self.test_lengths))):
            longest = max(map(len, encoded(split, corpus))) - 1
            if longest < needed:
                raise ValueError(
                    f"The longest {split} text of '{corpus}' holds windows of at most {longest} bytes, not {needed}: "
                    "choose a shorter length or a corpus of longer texts."
                )

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows drawn uniformly over all places of the training books; `progress` changes nothing."""
        texts, rows = encoded("train", self.corpus), max(1, tokens // self.length)
        ends = np.cumsum([max(0, len(text) - self.length) for text in texts])
        places = generator(self.name, "train", seed, step).integers(ends[-1], size=rows)
        books = np.searchsorted(ends, places, side="right")
        starts = places - np.concatenate(([0], ends[:-1]))[books]
        return _batch([texts[b][s : s + self.length + 1] for b, s in zip(books, starts, strict=True)], self.length)

    def exams(self, split: str) -> Iterator[Exam]:
        """Consecutive windows that overlap by one byte; rows of one exam are equally long."""
        texts = encoded(split, self.corpus)
        lengths = self.test_lengths if split == "test" else (self.length,)
        for length in lengths:
            by_size: dict[int, list[np.ndarray]] = {}
            for span in self.spans(split, max(lengths)):
                for start in range(span.start, span.start + span.size, length):
                    size = min(length, span.start + span.size - start)
                    by_size.setdefault(size, []).append(texts[span.document][start - 1 : start + size])
            for size, windows in by_size.items():
                rows = max(1, EXAM_TOKENS // size)
                for i in range(0, len(windows), rows):
                    yield Exam(_batch(windows[i : i + rows], length))

    def spans(self, split: str, block: int) -> list[Span]:
        """The scored bytes of a split: blocks of `block` bytes spread evenly, or everything with ragged ends."""
        sizes, limit = [len(text) for text in encoded(split, self.corpus)], self.bytes[split]
        every = [
            Span(i, start, min(block, size - start)) for i, size in enumerate(sizes) for start in range(1, size, block)
        ]
        full = [span for span in every if span.size == block]
        count = max(1, limit // block)
        if limit == 0 or limit >= sum(span.size for span in every):
            return every
        return [full[i * len(full) // count] for i in range(count)] if count < len(full) else full

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """Bits per byte; over the longest test windows also by position, in bins that double."""
        bits = answers.log_probability.double() / -math.log(2)
        yield Measurement("bits_per_byte", bits.mean().item(), bits.numel(), exam.batch.where)
        if exam.batch.where["length"] != max(self.test_lengths):
            return
        start, time = 0, bits.shape[1]
        while start < time:
            end = max(FIRST_BIN, 2 * start)
            part = bits[:, start:end]
            # The last bin is named by the window's end; a ragged window shares the names of the full ones.
            where = {"from": start, "to": min(end, exam.batch.where["length"])}
            yield Measurement("bits_per_byte_at_position", part.mean().item(), part.numel(), where)
            start = end

    def finish(self, measurements: list[Measurement]) -> list[Measurement]:
        """Add perplexity per byte, 2 to the mean bits per byte."""
        bits = [m for m in measurements if m.metric == "bits_per_byte"]
        return measurements + [m._replace(metric="perplexity", value=2**m.value) for m in bits]

    def floors(self) -> dict[str, list[Measurement]]:
        """Counting models fitted on the training books, on exactly the bytes that the test scores."""
        train, validation = encoded("train", self.corpus), encoded("validation", self.corpus)
        bigram = Bigram(train, validation)
        models = {
            "floor: uniform": Uniform(),
            "floor: unigram": Unigram(train),
            f"floor: bigram, add-{bigram.k:g}": bigram,
            "reference: trigram, Witten-Bell": Trigram(train),
        }
        return {name: sit(self, partial(_answer, model)) for name, model in models.items()}

    def data_hash(self) -> str:
        """The corpus's."""
        return corpora.data_hash(self.corpus)


def _answer(model: CountingModel, exam: Exam) -> Answers:
    """A counting model's answers: at a window's first place it sees one byte, as every model does."""
    last, target = exam.batch.tokens.numpy(), exam.batch.targets.numpy()
    before = np.concatenate([np.full((len(last), 1), -1), last[:, :-1]], 1)
    log_probability = torch.from_numpy(np.ascontiguousarray(model(before, last, target)))
    return Answers(log_probability, torch.zeros(target.shape, dtype=torch.bool))


def _batch(windows: list[np.ndarray], length: int) -> Batch:
    rows: Tensor = torch.from_numpy(np.stack(windows).astype(np.int64))
    return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), {"length": length})
