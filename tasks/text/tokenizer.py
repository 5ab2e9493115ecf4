"""Text to tokens and back, and how many bytes and words of real text each token stands for.

A tokenizer is asked for by its setting: `bytes` (the default), `bpe:4096` (our own, trained on the corpus's training
texts), `gpt2`, or the path of a JSON file of the `tokenizers` library (`tasks/text/byte_pair.py`).
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

import schema
from tasks.text import byte_pair, cache
from tasks.text.byte_offsets import word_ends
from tasks.text.corpus import EMBEDDED, data_hash, documents, texts, version
from tasks.text.progress_bar import watched
from tasks.text.ragged_array import Parted, RaggedWriter

DEFAULT = "bytes"
TOKENS = "tokens"  # the file of a split's tokens, in a folder of the cache
BATCH = 1000  # documents


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

    def encode_many(self, texts: list[str]) -> list[np.ndarray]:
        """The tokens of several texts, each as `encode` gives them."""

    def byte_counts(self, text: str, tokens: np.ndarray) -> np.ndarray:
        """How many bytes of the text each of its tokens stands for, integers [time]; they sum to all of them."""


class ByteTokenizer:
    """One token is one byte of UTF-8."""

    name = "byte"
    vocab = 256
    fingerprint = ""
    separator = 0  # a text may hold the byte 0 too: documents are told by where they begin

    def encode(self, text: str) -> np.ndarray:
        """The bytes of a text, uint8 [time]."""
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def encode_many(self, texts: list[str]) -> list[np.ndarray]:
        """The bytes of several texts."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: list[int] | tuple[int, ...] | np.ndarray) -> str:
        """The text of bytes; what is no valid UTF-8 is shown as U+FFFD."""
        return bytes(np.asarray(tokens).tolist()).decode("utf-8", errors="replace")

    def byte_counts(self, text: str, tokens: np.ndarray) -> np.ndarray:
        """One each."""
        return np.ones(len(tokens), np.int64)


BYTES = ByteTokenizer()


class Text(NamedTuple):
    """A document, or several in one, in tokens, each behind one that stands for none of it."""

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
    if match := re.fullmatch(r"bpe:(\d{1,9})", name):
        return byte_pair.trained(int(match[1]), corpus, version(corpus))
    path = Path(name)
    try:
        path = path / "tokenizer.json" if path.is_dir() else path
        known = bool(name.strip()) and path.is_file()  # "" is no name of the folder that one stands in
    except (OSError, ValueError):  # too long for a path, or with a byte 0 in it
        known = False
    if not known:
        raise ValueError(
            f"There is no tokenizer {schema.shortened(name)}: ask for {DEFAULT}, bpe:SIZE, gpt2 or the path of a JSON file."
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


def apart(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The tokens of a question, and of its answer with the line break that closes it, as they are in the whole text.

    None where they are none of it: where a token joins the end of the one with the beginning of the other, or the answer
    with its line break. Encoded apart, such pieces would be tokens that no text has.
    """
    before, said = tokenizer.encode(prompt), ended(tokenizer, answer)
    if tokenizer is BYTES or np.array_equal(np.append(before, said), tokenizer.encode(prompt + answer + "\n")):
        return before, said
    return None


def separable(tokenizer: Tokenizer, prompt: str, answer: str, user: str) -> Tokenizer:
    """The tokenizer, if it takes this question and its answer apart; ValueError naming the `user` that cannot do without."""
    if apart(tokenizer, prompt, answer) is None:
        raise ValueError(
            f"The tokenizer '{tokenizer.name}' joins the end of a question with its answer in one token, or an answer with "
            f"its line break, which {user} cannot mark: choose another, such as gpt2 or bpe:4096."
        )
    return tokenizer


def ended(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The tokens of an answer and of the line break that closes it, which is always one token, the last."""
    return np.append(tokenizer.encode(text), tokenizer.encode("\n")[-1])


def combined_hash(data: str, tokenizer: Tokenizer) -> str:
    """The hash of data as a tokenizer shows it; with bytes the data's own."""
    return hashlib.sha256((data + tokenizer.fingerprint).encode()).hexdigest() if tokenizer.fingerprint else data


def beginning(tokenizer: Tokenizer) -> int:
    """The token behind which every document lies: the one that parts texts, or one more, where the tokenizer has none."""
    return tokenizer.vocab if tokenizer.separator is None else tokenizer.separator


def encoded(split: str, corpus: str = EMBEDDED, tokenizer: Tokenizer = BYTES) -> Parted:
    """The tokens of every document of a split, each behind the token of `beginning`.

    Bytes are the corpus's own; other tokens are made once, kept in the cache and mapped into memory.
    """
    return _encoded(split, corpus, tokenizer, version(corpus))


@lru_cache(maxsize=8)
def _encoded(split: str, corpus: str, tokenizer: Tokenizer, _: tuple) -> Parted:
    if tokenizer is BYTES:
        return texts(split, corpus)
    dtype = np.min_scalar_type(max(tokenizer.vocab - 1, beginning(tokenizer)))
    name = hashlib.sha256(f"{data_hash(corpus)} {split} {tokenizer.fingerprint}".encode()).hexdigest()
    folder = cache.kept(f"tokens/{name[:32]}", lambda path: _write(path, split, corpus, tokenizer, dtype))
    return Parted.mapped(folder / TOKENS, dtype)


def _write(folder: Path, split: str, corpus: str, tokenizer: Tokenizer, dtype: np.dtype) -> None:
    """The tokens of a split, many documents at a time, as `encode_many` may go over several cores."""
    folder.mkdir()
    found = watched(
        documents(split, corpus), lambda document: len(document.text), f"{tokenizer.name}: {corpus}, {split}"
    )
    with RaggedWriter(folder / TOKENS, beginning(tokenizer), dtype) as out:
        while batch := [document.text for document in islice(found, BATCH)]:
            out.extend(tokenizer.encode_many(batch))


def text(split: str, corpus: str, tokenizer: Tokenizer, first: int, last: int) -> Text:
    """The documents from number `first` to `last` of a split in one, each behind the token of `beginning`.

    That token stands for no byte and no word. The latest few are kept in memory.
    Raises ValueError for a tokenizer that drops a part of a text: its bits per byte would leave that out.
    """
    return _text(split, corpus, tokenizer, first, last, version(corpus))


@lru_cache(maxsize=16)
def _text(split: str, corpus: str, tokenizer: Tokenizer, first: int, last: int, _: tuple) -> Text:
    tokens, parts = encoded(split, corpus, tokenizer), []
    before = 0
    for number in range(first, last + 1):
        document = documents(split, corpus)[number]
        ends = np.cumsum(tokenizer.byte_counts(document.text, tokens[number]))
        words, content = word_ends(document.text, ends), BYTES.encode(document.text)
        parts.append((np.append(before, ends + before), np.append(0, words), content))
        before += len(content)
    span = slice(tokens.starts[first], tokens.starts[last + 1])
    return Text(tokens.flat[span], *map(np.concatenate, zip(*parts, strict=True)))
