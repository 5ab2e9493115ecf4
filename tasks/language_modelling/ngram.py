"""Floors, most of them counting models of bytes: what a language model must beat before it counts as having learned anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from tasks.text.tokenizer import Text

BYTE_VALUES = 256
BLOCK_BYTES = 2**22  # counted at a time
MOST_BYTES = 2**30  # what a table of three bytes learns, it has learned by then
ADD_K = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class CountingModel(Protocol):
    """What every model of bytes offers."""

    def __call__(self, before: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Natural logarithm of p(target | before, last), arrays of one shape; -1 in `before` means no such byte."""


class Floor(Protocol):
    """What guesses the tokens of a text."""

    def __call__(self, text: Text, start: int, size: int) -> np.ndarray:
        """Natural logarithm of the probability of each of the `size` tokens from `start` on, after the one before it."""


class Uniform:
    """All tokens are equally probable."""

    def __init__(self, vocab: int) -> None:
        self.log_probability = -np.log(vocab)

    def __call__(self, text: Text, start: int, size: int) -> np.ndarray:
        """-log vocab everywhere."""
        return np.full(size, self.log_probability)


class ByBytes:
    """A counting model as a guesser of tokens: a token is as probable as its bytes, one after another.

    So it is the same under every tokenizer, but for what it sees where a window begins: one token, as every model does.
    """

    def __init__(self, model: CountingModel) -> None:
        self.model = model

    def __call__(self, text: Text, start: int, size: int) -> np.ndarray:
        """The sum over each token's bytes; 0 for a token without any."""
        begin = text.ends[start - 2] if start > 1 else 0
        seen, counts = text.ends[start - 1] - begin, np.diff(text.ends[start - 1 : start + size])
        window = np.concatenate([[-1, -1], text.content[begin : text.ends[start + size - 1]]])
        before, last, target = window[seen:-2], window[seen + 1 : -1], window[seen + 2 :]
        return np.bincount(np.repeat(np.arange(size), counts), self.model(before, last, target), minlength=size)


class Bigram:
    """p(c | b) = (n(bc) + k) / (n(b) + 256 k), with the k of ADD_K that is best on the validation text."""

    def __init__(self, train: Sequence[np.ndarray], validation: Sequence[np.ndarray]) -> None:
        counts, held_out = pair_counts(train), pair_counts(validation)
        tables = {k: np.log(add_k(counts, k)) for k in ADD_K}
        self.k = max(tables, key=lambda k: float((held_out * tables[k]).sum()))
        self.log_probability = tables[self.k]

    def __call__(self, before: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Natural logarithm of p(target | last); `before`, the byte before `last`, is not looked at."""
        return self.log_probability[last, target]


class Unigram:
    """p(c) = (n(c) + 1) / (n + 256)."""

    def __init__(self, train: Sequence[np.ndarray]) -> None:
        self.log_probability = np.log(add_k(single_counts(train)[None], 1.0))[0]

    def __call__(self, before: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Natural logarithm of p(target)."""
        return self.log_probability[target]


class Trigram:
    """Witten-Bell interpolation down to the uniform: p(c | h) = (n(hc) + T(h) p(c | h')) / (n(h) + T(h)).

    T(h) is the number of distinct bytes seen after the history h, and h' is h without its oldest byte. A history that
    was never seen, or is absent (-1), leaves all to the shorter one.
    """

    def __init__(self, train: Sequence[np.ndarray]) -> None:
        # Texts use about 85 of the 256 byte values; all others share the last symbol, which is never counted.
        seen = np.flatnonzero(single_counts(train))
        self.size = size = len(seen) + 1
        self.symbol = np.full(BYTE_VALUES, size - 1, np.int64)
        self.symbol[seen] = np.arange(size - 1)
        self.counts = [_runs(train, self.symbol, order, size).reshape(-1, size) for order in (1, 2, 3)]
        self.totals = [count.sum(1) for count in self.counts]
        self.kinds = [(count > 0).sum(1) for count in self.counts]

    def __call__(self, before: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Natural logarithm of p(target | before, last)."""
        # An absent byte, -1, falls on symbol[255], which is never counted: no UTF-8 text holds the byte 255.
        c, b, a = self.symbol[target], self.symbol[last], self.symbol[before]
        histories = (np.zeros_like(b), b, a * self.size + b)
        p = np.full(target.shape, 1.0 / BYTE_VALUES)
        for order, history in enumerate(histories):
            total, kinds = self.totals[order][history], self.kinds[order][history]
            longer = (self.counts[order][history, c] + kinds * p) / np.maximum(total + kinds, 1)
            p = np.where(total > 0, longer, p)
        return np.log(p)


def single_counts(texts: Sequence[np.ndarray]) -> np.ndarray:
    """How often each byte occurs, [256]."""
    return _runs(texts, np.arange(BYTE_VALUES), 1, BYTE_VALUES)


def pair_counts(texts: Sequence[np.ndarray]) -> np.ndarray:
    """How often each byte follows each other, [256 first, 256 second]; no pair spans two texts."""
    return _runs(texts, np.arange(BYTE_VALUES), 2, BYTE_VALUES).reshape(BYTE_VALUES, BYTE_VALUES)


def add_k(counts: np.ndarray, k: float) -> np.ndarray:
    """Rows of counts [histories, 256] as probabilities, each count raised by k."""
    return (counts + k) / (counts.sum(1, keepdims=True) + k * counts.shape[1])


def _runs(texts: Sequence[np.ndarray], symbol: np.ndarray, order: int, size: int) -> np.ndarray:
    """How often each run of `order` symbols occurs within a text, [size ** order]; the first MOST_BYTES are counted."""
    counts = np.zeros(size**order, np.int64)
    for block in _blocks(texts):
        codes = symbol[np.concatenate(block)].astype(np.int64)
        joined = np.zeros(max(0, len(codes) - order + 1), np.int64)
        for i in range(order):
            joined = joined * size + codes[i : len(codes) - order + 1 + i]
        ends = np.cumsum([len(text) for text in block])
        across = (ends[:-1, None] - np.arange(1, order)).ravel()  # runs that begin in one text and end in another
        counts += np.bincount(np.delete(joined, across[(across >= 0) & (across < len(joined))]), minlength=size**order)
    return counts


def _blocks(texts: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The texts, many short ones at a time, until they have MOST_BYTES."""
    block, size, seen = [], 0, 0
    for text in texts:
        block, size, seen = [*block, text], size + len(text), seen + len(text)
        if size >= BLOCK_BYTES or seen >= MOST_BYTES:
            yield block
            block, size = [], 0
        if seen >= MOST_BYTES:
            return
    if block:
        yield block
