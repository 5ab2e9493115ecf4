"""Which documents train, validate and test. No document is in two splits, and none is cut unless `#cut` asks for it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

SPLITS = ("train", "validation", "test")
ALIASES = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "testing": "test"}
HELD_OUT = 0.05  # share of the documents for validation, and again for test
CUT = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}


class Document(NamedTuple):
    """One text that no window and no split ever cuts across."""

    id: str
    text: str


class Found(NamedTuple):
    """A document with the split that it tells itself, and the one that its file's name tells, if any."""

    document: Document
    told: str | None = None
    named: str | None = None


def assign(corpus: str, read: Callable[[], Iterable[Found]]) -> Iterator[tuple[str, Document]]:
    """Every document with its split: the one that it tells itself; else, where the names of files tell all three, theirs;
    else one by the hash of its id. The documents are read twice, first for what all of them tell.

    Raises ValueError for ids that occur twice, for splits told in part, and for fewer than three documents.
    """
    splits = _told(corpus, [(document.id, told, named) for document, told, named in read()])
    for split, (document, *_) in zip(splits, read(), strict=True):
        yield split, document


def _told(corpus: str, found: list[tuple[str, str | None, str | None]]) -> list[str]:
    """The split of each document, by its id and what it and its file tell."""
    ids = [number for number, *_ in found]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"The corpus '{corpus}' has two documents '{twice}': give every document an id of its own.")
    told = [ALIASES.get(split, split) for _, split, _ in found]
    if any(told) and set(told) != set(SPLITS):
        raise ValueError(f"The corpus '{corpus}' tells a split for some documents: tell {', '.join(SPLITS)} for all.")
    named = [split for *_, split in found]
    if any(told):
        return told
    if set(named) == set(SPLITS):
        return named
    if len(found) < len(SPLITS):
        raise ValueError(
            f"The corpus '{corpus}' has {len(found)} document(s) and needs at least 3, as a split never cuts one: "
            "part the text by lines <|endoftext|>, give a folder or a .jsonl file, or add #cut to the path to train on "
            "the beginning and test on the end."
        )
    held = by_hash(ids)
    return [held[number] for number in ids]


def by_hash(names: Iterable[str]) -> dict[str, str]:
    """The split of each name: 5 % test, 5 % validate (at least one each), the others train."""
    # Ranks instead of thresholds: even three documents fill three splits.
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    count = max(1, round(HELD_OUT * len(ranked)))
    held = dict.fromkeys(ranked[:count], "test") | dict.fromkeys(ranked[count : 2 * count], "validation")
    return {name: held.get(name, "train") for name in ranked}


def cut(found: Iterable[Found]) -> Iterator[tuple[str, Document]]:
    """Each document cut in three at ends of lines: the first 90 % train, the next 5 % validate, the last 5 % test."""
    for (name, text), *_ in found:
        for split, ends in CUT.items():
            begin, end = (_line_start(text, round(share * len(text))) for share in ends)
            if begin < end:
                yield split, Document(f"{name}[{split}]", text[begin:end])


def _line_start(text: str, place: int) -> int:
    """The first place from `place` on where a line begins; `place` itself at either end, or where no line ends after it."""
    if place in (0, len(text)) or text[place - 1] == "\n":
        return place
    return text.find("\n", place) + 1 or place


def told_by_name(path: str) -> str | None:
    """The one split that a file's path names: "books/valid.txt" -> "validation"; None for none or several."""
    words = re.split(r"[^a-z]+", path.lower())
    named = {ALIASES.get(word, word) for word in words} & set(SPLITS)
    return named.pop() if len(named) == 1 else None
