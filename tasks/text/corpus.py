"""Texts by split. Training, validation and test are always different documents, never parts of one.

The embedded pack `austen-melville` (six novels by Jane Austen and Moby-Dick, in the public domain) works everywhere:
Persuasion is the test, Northanger Abbey the validation, the other five books are for training. A corpus is otherwise

- a path: a text file (documents parted by lines `<|endoftext|>`, or at WikiText's titles), a .jsonl file with a `text`
  (and perhaps an `id` and a `split`) in each line, either one compressed (.gz, .bz2, .xz, .zst), a folder of such files,
  or an archive of them (.tar.xz, .zip, ...); with `#cut` behind the path every document is itself cut in three.
  Documents that tell no split are split as the names of their files say (train, validation, test, eval, ...), else by the
  hash of their ids. Hidden files and backups are no documents, and a text that stands twice is read once;
- a name: `sotu`, `fineweb-edu`, `wikitext-103` or `pg19` (`tasks/text/named.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import schema
from schema.places import ROOT
from tasks.text import store
from tasks.text.files import listed, read
from tasks.text.named import NAMES, is_named, prepared
from tasks.text.ragged_array import Parted
from tasks.text.splits import SPLITS, Document, assign, cut

__all__ = ["EMBEDDED", "SPLITS", "Document", "data_hash", "documents", "label", "texts", "version"]

EMBEDDED = "austen-melville"
PACK = ROOT / "tasks" / "data" / "austen-melville.jsonl.xz"
PACK_SHA256 = "96370e27b62df6cbc5dca7d29ea922fc9a9e37bdac601c425b5ec19db7a918af"
PACK_SPLITS = {"austen_persuasion": "test", "austen_northanger_abbey": "validation"}
CUT_MARK = "#cut"
LONGEST_PATH = 300  # characters of a path that a message repeats


def documents(split: str, corpus: str = EMBEDDED) -> Sequence[Document]:
    """The documents of "train", "validation" or "test", each read when it is asked for.

    Raises ValueError for an unknown split or an unreadable corpus.
    """
    return _of_split(split, corpus)


def texts(split: str, corpus: str = EMBEDDED) -> Parted:
    """The texts of the same documents as bytes, each behind a byte 0."""
    return _of_split(split, corpus).texts


def data_hash(corpus: str = EMBEDDED) -> str:
    """sha256 of the corpus: the pack's own for the embedded one, else of every document with its split."""
    return _kept(corpus, version(corpus)).sha256


def label(corpus: str = EMBEDDED) -> str:
    """The corpus's name in tables: a user's path gives its file's name without endings."""
    named = corpus == EMBEDDED or is_named(corpus)
    return corpus if named else Path(corpus.removesuffix(CUT_MARK)).name.split(".")[0]


def version(corpus: str = EMBEDDED) -> tuple:
    """The state of a corpus's files, for caches to notice when a user's text changes."""
    files = listed(_path(corpus))
    return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)


def _path(corpus: str) -> Path:
    """The file or folder of a corpus; ValueError where there is none."""
    if is_named(corpus):
        return prepared(corpus)
    if not corpus.removesuffix(CUT_MARK).strip():  # else it would be the folder that one happens to stand in
        raise ValueError(f"The corpus is empty: name a file, a folder ('.' for this one) or '{EMBEDDED}'.")
    path = PACK if corpus == EMBEDDED else Path(corpus.removesuffix(CUT_MARK))
    if not _is_text(path):
        names = ", ".join(NAMES)
        advice = f"name a file, a folder or '{EMBEDDED}', or one of {names}"
        is_what = "is neither a file nor a folder" if _is_there(path) else "is not there"
        raise ValueError(
            f"The corpus {schema.shortened(str(path), LONGEST_PATH)} {is_what}: "
            f"{advice if path != PACK else 'restore it from the repository'}."
        )
    return path


def _is_text(path: Path) -> bool:
    """Whether a path is a file or a folder: reading a pipe or a device may never end."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):  # too long, or with a byte 0 in it
        return False


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _of_split(split: str, corpus: str) -> store.Documents:
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}': ask for {', '.join(SPLITS)}.")
    return _kept(corpus, version(corpus)).splits[split]


@lru_cache(maxsize=4)
def _kept(corpus: str, its_version: tuple) -> store.StoredCorpus:
    if corpus == EMBEDDED:
        found = [(PACK_SPLITS.get(d.id, "train"), d) for d, *_ in read(PACK, PACK_SHA256)]
        return store.in_memory(found, PACK_SHA256)
    path = _path(corpus)
    if corpus.endswith(CUT_MARK):
        return store.kept(corpus, its_version, lambda: cut(read(path)))
    return store.kept(corpus, its_version, lambda: assign(corpus, lambda: read(path)))
