"""The documents of a corpus by split, kept in the cache as files that are mapped into memory: a corpus may be larger than it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.text import cache
from tasks.text.progress_bar import watched
from tasks.text.ragged_array import Parted, RaggedWriter
from tasks.text.splits import SPLITS, Document

BYTE = np.dtype(np.uint8)
SEPARATOR = 0  # that of the byte tokenizer, whose tokens the texts are as they lie
KINDS = ("ids", "texts")  # of files, beside SHA256
SHA256 = "sha256"
READER = 2  # raised where the same files are read, or split, otherwise than before: what was prepared then is not used

Assigned = Iterable[tuple[str, Document]]


class Documents(Sequence[Document]):
    """The documents of one split, each decoded when it is asked for."""

    def __init__(self, ids: Parted, texts: Parted) -> None:
        self.ids, self.texts = ids, texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Document:
        return Document(self.ids[index].tobytes().decode(), self.texts[index].tobytes().decode())


class StoredCorpus(NamedTuple):
    """A corpus: its documents by split, and the sha256 of every document with its split."""

    splits: dict[str, Documents]
    sha256: str


def in_memory(assigned: Assigned, sha256: str) -> StoredCorpus:
    """A corpus that is small and known."""
    found = [(split, *map(_bytes, document)) for split, document in assigned]
    parts = {split: [[row[i] for row in found if row[0] == split] for i in (1, 2)] for split in SPLITS}
    return StoredCorpus(
        {split: Documents(*(Parted.of(part, SEPARATOR, BYTE) for part in parts[split])) for split in SPLITS}, sha256
    )


def kept(corpus: str, version: tuple, read: Callable[[], Assigned]) -> StoredCorpus:
    """A corpus out of the cache; written there first, one document at a time, if files of this version are new to it.

    What the cache holds of the corpus's earlier versions is removed.
    """
    place = Path("corpora") / _short(str(Path(corpus).resolve())) / _short(repr((READER, version)))
    folder = cache.kept(str(place), lambda path: _write(path, watched(read(), _size, f"reading {corpus}")))
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder and not other.name.startswith(cache.UNFINISHED):
            shutil.rmtree(other, ignore_errors=True)
    return StoredCorpus(_mapped(folder), (folder / SHA256).read_text())


def _mapped(folder: Path) -> dict[str, Documents]:
    return {split: Documents(*(Parted.mapped(folder / f"{split}.{kind}", BYTE) for kind in KINDS)) for split in SPLITS}


def _write(folder: Path, assigned: Assigned) -> None:
    folder.mkdir()
    with ExitStack() as files:
        writers = {
            (split, kind): files.enter_context(RaggedWriter(folder / f"{split}.{kind}", SEPARATOR, BYTE))
            for split in SPLITS
            for kind in KINDS
        }
        for split, document in assigned:
            writers[split, "ids"].add(_bytes(document.id))
            writers[split, "texts"].add(_bytes(document.text))
    digest = hashlib.sha256()
    for split, found in _mapped(folder).items():
        for document in found:
            digest.update(json.dumps([split, document.id, document.text]).encode())
    (folder / SHA256).write_text(digest.hexdigest())


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _size(assigned: tuple[str, Document]) -> int:
    return len(assigned[1].text)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
