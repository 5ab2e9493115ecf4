"""Text to tokens and back, and how many bytes and words of real text each token stands for.

A tokenizer is asked for by its setting: `bytes` (the default), `bpe:4096` (our own, trained on the corpus's training
texts), `gpt2`, or the path of a JSON file of the `tokenizers` library (`tasks/byte_pair.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tasks import byte_pair, cache
from tasks.corpus import EMBEDDED, Document, data_hash, documents, version
from tasks.text_places import word_ends

DEFAULT = "bytes"


class Tokenizer(Protocol):
    """What a tokenizer offers; `decode(encode(text)) == text` for every text."""

    name: str  # the unit of lengths in tables
    vocab: int
    fingerprint: str  # sha256 of what was learned; "" for bytes
    separator: int | None  # the token between two documents, if there is one

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, integers [time]."""

    def decode(self, tokens: list[int] | tuple[int, ...] | np.ndarray) -> str:
        """The text of tokens; what is no valid text is shown as U+FFFD."""

    def byte_counts(self, text: str, tokens: np.ndarray) -> np.ndarray:
        """How many bytes of the text each of its tokens stands for, integers [time]; they sum to all of them."""


class ByteTokenizer:
    """One token is one byte of UTF-8."""

    name = "byte"
    vocab = 256
    fingerprint = ""
    separator = 0  # no text holds the byte 0

    def encode(self, text: str) -> np.ndarray:
        """The bytes of a text, uint8 [time]."""
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def decode(self, tokens: list[int] | tuple[int, ...] | np.ndarray) -> str:
        """The text of bytes; what is no valid UTF-8 is shown as U+FFFD."""
        return bytes(int(token) for token in tokens).decode("utf-8", errors="replace")

    def byte_counts(self, text: str, tokens: np.ndarray) -> np.ndarray:
        """One each."""
        return np.ones(len(tokens), np.int64)


BYTES = ByteTokenizer()


class Text(NamedTuple):
    """A document, or several in one, in tokens."""

    tokens: np.ndarray  # [time]
    ends: np.ndarray  # [time], the byte before which each token ends
    words: np.ndarray  # [time], how many words end in each token
    content: np.ndarray  # uint8 [bytes]


def create(name: str = DEFAULT, corpus: str = EMBEDDED) -> Tokenizer:
    """The tokenizer of a setting; ValueError in one sentence for what is unknown, unreadable or not installed."""
    if name in (DEFAULT, BYTES.name):
        return BYTES
    if name == "gpt2":
        return byte_pair.gpt2()
    if match := re.fullmatch(r"bpe:(\d+)", name):
        return byte_pair.trained(int(match[1]), corpus, version(corpus))
    path = Path(name)
    if path.is_dir():
        path /= "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"There is no tokenizer '{name}': ask for {DEFAULT}, bpe:SIZE, gpt2 or the path of a JSON file."
        )
    return byte_pair.read(path, path.stat().st_mtime_ns)


def reversible(tokenizer: Tokenizer, sample: str, user: str) -> Tokenizer:
    """The tokenizer, if it gives the sample back; ValueError naming the `user` that cannot do without."""
    if tokenizer.decode(tokenizer.encode(sample)) != sample:
        raise ValueError(
            f"The tokenizer '{tokenizer.name}' does not give a text back as it was, which {user} needs: "
            "choose one at byte level, such as gpt2 or bpe:4096."
        )
    return tokenizer


def ended(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The tokens of an answer and of the line break that closes it, which is always one token, the last."""
    return np.append(tokenizer.encode(text), tokenizer.encode("\n")[-1])


def combined_hash(data: str, tokenizer: Tokenizer) -> str:
    """The hash of data as a tokenizer shows it; with bytes the data's own."""
    return hashlib.sha256((data + tokenizer.fingerprint).encode()).hexdigest() if tokenizer.fingerprint else data


def encoded(split: str, corpus: str = EMBEDDED, tokenizer: Tokenizer = BYTES) -> tuple[np.ndarray, ...]:
    """The tokens of every document of a split, kept in memory, and but for bytes in the cache too; read-only."""
    return _encoded(split, corpus, tokenizer, version(corpus))


def texts(split: str, corpus: str = EMBEDDED, tokenizer: Tokenizer = BYTES) -> tuple[Text, ...]:
    """Every document of a split in tokens with their bytes and words, kept in memory.

    Raises ValueError for a tokenizer that drops a part of a text: its bits per byte would leave that out.
    """
    return _texts(split, corpus, tokenizer, version(corpus))


@lru_cache(maxsize=8)
def _encoded(split: str, corpus: str, tokenizer: Tokenizer, _: tuple) -> tuple[np.ndarray, ...]:
    found = documents(split, corpus)
    if tokenizer is BYTES:
        return tuple(BYTES.encode(document.text) for document in found)
    name = hashlib.sha256(f"{data_hash(corpus)} {split} {tokenizer.fingerprint}".encode()).hexdigest()
    with np.load(cache.kept(f"tokens/{name[:32]}.npz", lambda path: _save(path, found, tokenizer))) as kept:
        flat, ends = kept["tokens"], kept["ends"]
    flat.flags.writeable = False
    return tuple(np.split(flat, ends[:-1]))


def _save(path: Path, found: list[Document], tokenizer: Tokenizer) -> None:
    parts = [tokenizer.encode(document.text) for document in found]
    np.savez(path, tokens=np.concatenate(parts), ends=np.cumsum([len(part) for part in parts]))


@lru_cache(maxsize=4)
def _texts(split: str, corpus: str, tokenizer: Tokenizer, _: tuple) -> tuple[Text, ...]:
    made = []
    for document, tokens in zip(documents(split, corpus), encoded(split, corpus, tokenizer), strict=True):
        ends = np.cumsum(tokenizer.byte_counts(document.text, tokens))
        made.append(Text(tokens, ends, word_ends(document.text, ends), BYTES.encode(document.text)))
    return tuple(made)


def with_separators(parts: Sequence[np.ndarray], separator: int) -> np.ndarray:
    """The parts in one, each after a separator."""
    before = np.array([separator], np.promote_types(parts[0].dtype, np.min_scalar_type(separator)))
    return np.concatenate([piece for part in parts for piece in (before, part)])


def joined(found: Sequence[Text], separator: int) -> Text:
    """Several texts in one, each after a separator, which stands for no byte and no word."""
    before = np.cumsum([0, *(len(text.content) for text in found)])
    return Text(
        with_separators([text.tokens for text in found], separator),
        np.concatenate([np.concatenate([[b], text.ends + b]) for b, text in zip(before, found, strict=False)]),
        with_separators([text.words for text in found], 0),
        np.concatenate([text.content for text in found]),
    )
