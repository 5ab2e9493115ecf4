"""Text to tokens and back. Bytes are the tokens so far; another tokenizer is one more class of the same shape."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np

from tasks.corpus import EMBEDDED, documents, version


class Tokenizer(Protocol):
    """What a tokenizer offers; `decode(encode(text)) == text` for every text."""

    name: str
    vocab: int

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, integers [time]."""

    def decode(self, tokens: list[int] | tuple[int, ...] | np.ndarray) -> str:
        """The text of tokens; what is no valid text is shown as U+FFFD."""


class ByteTokenizer:
    """One token is one byte of UTF-8."""

    name = "byte"
    vocab = 256

    def encode(self, text: str) -> np.ndarray:
        """The bytes of a text, uint8 [time]."""
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def decode(self, tokens: list[int] | tuple[int, ...] | np.ndarray) -> str:
        """The text of bytes; what is no valid UTF-8 is shown as U+FFFD."""
        return bytes(int(token) for token in tokens).decode("utf-8", errors="replace")


BYTES = ByteTokenizer()


def encoded(split: str, corpus: str = EMBEDDED, tokenizer: Tokenizer = BYTES) -> tuple[np.ndarray, ...]:
    """The tokens of every document of a split, kept in memory; read-only."""
    return _encoded(split, corpus, tokenizer, version(corpus))


@lru_cache(maxsize=8)
def _encoded(split: str, corpus: str, tokenizer: Tokenizer, _: tuple) -> tuple[np.ndarray, ...]:
    return tuple(tokenizer.encode(document.text) for document in documents(split, corpus))
