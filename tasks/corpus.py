"""Texts by split. Training, validation and test are always different documents, never parts of one.

The embedded pack `austen-melville` (six novels by Jane Austen and Moby-Dick, in the public domain) works everywhere:
Persuasion is the test, Northanger Abbey the validation, the other five books are for training. A user's own corpus is a
path: a text file with documents parted by lines `<|endoftext|>`, a .jsonl file with a `text` (and perhaps an `id` and a
`split`) in each line, either one compressed as .gz, .bz2 or .xz, or a folder of such files.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

EMBEDDED = "austen-melville"
PACK = Path(__file__).parent / "data" / "austen-melville.jsonl.xz"
PACK_SHA256 = "96370e27b62df6cbc5dca7d29ea922fc9a9e37bdac601c425b5ec19db7a918af"
PACK_SPLITS = {"austen_persuasion": "test", "austen_northanger_abbey": "validation"}
SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {"valid": "validation", "dev": "validation"}
HELD_OUT = 0.05  # share of a user's documents for validation, and again for test
SEPARATOR = re.compile(r"^<\|endoftext\|>\s*$", re.MULTILINE)
DECOMPRESS = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
TEXT_FILES = (".txt", ".text", ".md", ".jsonl")


class Document(NamedTuple):
    """One text that no window and no split ever cuts across."""

    id: str
    text: str


def documents(split: str, corpus: str = EMBEDDED) -> list[Document]:
    """The documents of "train", "validation" or "test"; ValueError for an unknown split or an unreadable corpus."""
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}': ask for {', '.join(SPLITS)}.")
    return list(_splits(corpus, version(corpus))[split])


def data_hash(corpus: str = EMBEDDED) -> str:
    """sha256 of the corpus: the pack's own for the embedded one, else of every document with its split."""
    return PACK_SHA256 if corpus == EMBEDDED else _hash(corpus, version(corpus))


def label(corpus: str = EMBEDDED) -> str:
    """The corpus's name in tables: a user's path gives its file's name without endings."""
    return corpus if corpus == EMBEDDED else Path(corpus).name.split(".")[0]


def version(corpus: str = EMBEDDED) -> tuple:
    """The state of a corpus's files, for caches to notice when a user's text changes."""
    return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in _files(corpus))


def _files(corpus: str) -> list[Path]:
    path = PACK if corpus == EMBEDDED else Path(corpus)
    if path.is_file():
        return [path]
    if not path.is_dir():
        advice = "restore it from the repository" if path == PACK else f"name a file, a folder or '{EMBEDDED}'"
        raise ValueError(f"The corpus '{path}' is not there: {advice}.")
    files = [file for file in path.rglob("*") if file.is_file() and set(file.suffixes) & set(TEXT_FILES)]
    if not files:
        raise ValueError(f"The folder '{path}' holds no text: put {', '.join(TEXT_FILES)} files into it.")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


@lru_cache(maxsize=8)
def _hash(corpus: str, _: tuple) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for document in documents(split, corpus):
            digest.update(json.dumps([split, document.id, document.text]).encode())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _splits(corpus: str, files: tuple) -> dict[str, tuple[Document, ...]]:
    if corpus == EMBEDDED:
        found = [(PACK_SPLITS.get(document.id, "train"), document) for _, document in _read(PACK, "", PACK_SHA256)]
    else:
        top = Path(corpus)
        named = [
            (Path(name), Path(name).relative_to(top).as_posix() + ":" if top.is_dir() else "") for name, *_ in files
        ]
        found = _assign(corpus, [pair for file, prefix in named for pair in _read(file, prefix)])
    return {split: tuple(document for its, document in found if its == split) for split in SPLITS}


def _assign(corpus: str, found: list[tuple[str | None, Document]]) -> list[tuple[str, Document]]:
    """Give every document its split: the one it tells itself, or, if none tells any, one by the hash of its id."""
    ids = [document.id for _, document in found]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"The corpus '{corpus}' has two documents '{twice}': give every document an id of its own.")
    told = [SPLIT_ALIASES.get(split, split) for split, _ in found]
    if any(told):
        if set(told) != set(SPLITS):
            raise ValueError(
                f"The corpus '{corpus}' tells a split for some documents: tell {', '.join(SPLITS)} for all."
            )
        return [(split, document) for split, (_, document) in zip(told, found, strict=True)]
    if len(found) < len(SPLITS):
        raise ValueError(
            f"The corpus '{corpus}' has {len(found)} document(s) and needs at least 3, as a split never cuts one: "
            "part the text by lines <|endoftext|>, or give a folder or a .jsonl file."
        )
    # Ranks instead of thresholds: even three documents fill three splits.
    ranked = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    count = max(1, round(HELD_OUT * len(ids)))
    held = dict.fromkeys(ranked[:count], "test") | dict.fromkeys(ranked[count : 2 * count], "validation")
    return [(held.get(document.id, "train"), document) for _, document in found]


def _read(file: Path, prefix: str, sha256: str | None = None) -> list[tuple[str | None, Document]]:
    """The documents of one file with the split that each tells, if any; documents without text are left out."""
    raw = file.read_bytes()
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(
            f"The corpus '{file}' is damaged (its sha256 is not {sha256}): restore it from the repository."
        )
    try:
        text = DECOMPRESS.get(file.suffix, bytes)(raw).decode("utf-8")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The corpus '{file}' cannot be read as UTF-8 text ({error}): repair or convert it."
        ) from error
    if ".jsonl" not in file.suffixes:
        parts = [part.strip("\n") for part in SEPARATOR.split(text)]
        return [(None, Document(f"{prefix}{i}", part)) for i, part in enumerate(parts) if part]
    found = []
    for number, line in enumerate(filter(str.strip, text.split("\n")), 1):
        try:
            record = json.loads(line)
            split, document = record.get("split"), Document(f"{prefix}{record.get('id', number)}", record["text"])
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"Record {number} of '{file}' is no JSON object with a 'text': repair it.") from error
        if document.text:
            found.append((split, document))
    return found
