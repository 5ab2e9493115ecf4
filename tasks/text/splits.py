"""Which documents train, validate and test. No document is in two splits, and none is cut unless `#cut` asks for it."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

SPLITS = ("train", "validation", "test")
EVALUATION = "evaluation"  # validation or test, by what stands beside it
ALIASES = {
    "training": "train", "trn": "train", "testing": "test", "tst": "test", "valid": "validation", "val": "validation",
    "dev": "validation", "development": "validation", "validate": "validation", "devel": "validation", "eval": EVALUATION,
    "evaluate": EVALUATION, "heldout": EVALUATION, "holdout": EVALUATION,
}  # fmt: skip
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
    """Every document with its split: the one that it tells itself; else, where the names of files tell splits, theirs;
    else one by the hash of its id. The documents are read twice, first for what all of them tell.

    A text that stands several times, white space aside, is kept once, in the split that is held out the most: none
    trains that is asked, and none is asked twice.
    Raises ValueError for ids that occur twice, for splits told in part or left without a text, and for fewer than three
    documents.
    """
    splits = _kept_once(_told(corpus, [_Facts.of(found) for found in read()]))
    if empty := [split for split in SPLITS if split not in splits]:
        raise ValueError(
            f"The corpus '{corpus}' has no text for {_listed(set(empty))} that does not stand in another split too: give "
            "other texts."
        )
    if copies := splits.count(None):
        warnings.warn(f"The corpus '{corpus}' holds {copies} text(s) more than once: each is read once.", stacklevel=2)
    for split, (document, *_) in zip(splits, read(), strict=True):
        if split:
            yield split, document


class _Facts(NamedTuple):
    """What of a document tells its split."""

    id: str
    told: str | None
    named: str | None
    content: bytes

    @classmethod
    def of(cls, found: Found) -> _Facts:
        told = None if found.told is None else _split(found.told)
        return cls(found.document.id, told, found.named, fingerprint(found.document.text))


def fingerprint(text: str) -> bytes:
    """Equal for texts that differ in nothing but white space and line ends."""
    return hashlib.sha256(" ".join(text.split()).encode()).digest()


def once(found: Iterable[Found]) -> Iterator[Found]:
    """Each text once, the first time that it comes."""
    seen = set()
    for each in found:
        if (content := fingerprint(each.document.text)) not in seen:
            seen.add(content)
            yield each


def _kept_once(splits: list[tuple[str, bytes]]) -> list[str | None]:
    """The split of every document, None for one whose text is kept in another place."""
    most: dict[bytes, tuple[int, int]] = {}
    for number, (split, content) in enumerate(splits):
        place = (-SPLITS.index(split), number)
        most[content] = min(most.get(content, place), place)
    return [split if most[content][1] == number else None for number, (split, content) in enumerate(splits)]


def _told(corpus: str, found: list[_Facts]) -> list[tuple[str, bytes]]:
    """The split of each document, by its id and what it and its file tell, and its content."""
    twice, count = (Counter(facts.id for facts in found).most_common(1) or [("", 0)])[0]
    if count > 1:
        raise ValueError(f"The corpus '{corpus}' has two documents '{twice}': give every document an id of its own.")
    told = _evaluated([facts.told for facts in found])
    if any(told) and set(told) != set(SPLITS):
        raise ValueError(f"The corpus '{corpus}' tells a split for some documents: tell {', '.join(SPLITS)} for all.")
    if not any(told):
        told = _by_names(corpus, found) or _by_ids(corpus, found)
    return [(split, facts.content) for split, facts in zip(told, found, strict=True)]


def _evaluated(told: list[str | None]) -> list[str | None]:
    """What is called evaluation is the test where there is a validation beside it, else validation where there is a test."""
    if EVALUATION not in told or not set(told) & {"validation", "test"}:
        return told
    meant = "test" if "test" not in told else "validation"
    return [meant if split == EVALUATION else split for split in told]


def _by_names(corpus: str, found: list[_Facts]) -> list[str] | None:
    """The splits that the names of files tell; None where they tell none apart.

    Files for training and one kind held out: what is missing is taken by the hash of ids, a validation from the training
    texts, a test from half of what is held out.
    """
    named = _evaluated([facts.named for facts in found])
    kinds = set(named)
    if "train" not in kinds or len(kinds - {None}) < 2:
        return None
    if None in kinds:
        other = next(facts.id for facts in found if facts.named is None)
        raise ValueError(
            f"The corpus '{corpus}' has files for {_listed(kinds)} and others that tell none ('{other}'): name a split in "
            "all of them or in none, or take the others out."
        )
    missing = set(SPLITS) - kinds
    if not missing:
        return named
    giving = "train" if missing == {"validation"} else (kinds - {"train"}).pop()
    parts = by_hash(facts.id for facts, split in zip(found, named, strict=True) if split == giving)
    if len(parts) < 2:
        raise ValueError(
            f"The corpus '{corpus}' has files for {_listed(kinds)} alone, with one document of {giving}: add a file for "
            f"{_listed(missing)}."
        )
    if giving != "train":  # halves, in the order of their hashes
        ranked = list(parts)
        parts = {name: "test" if place < len(ranked) / 2 else "validation" for place, name in enumerate(ranked)}
    else:
        parts = {name: "validation" if split == "test" else "train" for name, split in parts.items()}
    return [parts[facts.id] if split == giving else split for facts, split in zip(found, named, strict=True)]


def _listed(kinds: set[str | None]) -> str:
    return " and ".join(sorted(kinds - {None}))


def _by_ids(corpus: str, found: list[_Facts]) -> list[str]:
    """Splits by the hash of ids; of equal texts the first one's id counts."""
    first: dict[bytes, str] = {}
    for facts in found:
        first.setdefault(facts.content, facts.id)
    if len(first) < len(SPLITS):
        raise ValueError(
            f"The corpus '{corpus}' has {len(first)} document(s) and needs at least 3, as a split never cuts one: "
            "part the text by lines <|endoftext|>, give a folder or a .jsonl file, or add #cut to the path to train on "
            "the beginning and test on the end."
        )
    held = by_hash(first.values())
    return [held[first[facts.content]] for facts in found]


def by_hash(names: Iterable[str]) -> dict[str, str]:
    """The split of each name: 5 % test, 5 % validate (at least one each), the others train."""
    # Ranks instead of thresholds: even three documents fill three splits.
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    count = max(1, round(HELD_OUT * len(ranked)))
    held = dict.fromkeys(ranked[:count], "test") | dict.fromkeys(ranked[count : 2 * count], "validation")
    return {name: held.get(name, "train") for name in ranked}


def cut(found: Iterable[Found]) -> Iterator[tuple[str, Document]]:
    """Each document cut in three at ends of lines: the first 90 % train, the next 5 % validate, the last 5 % test."""
    for (name, text), *_ in once(found):
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
    """The one split that a file's name or, nearest first, a folder's tells: "books/valid.txt" -> "validation"; else None."""
    for part in reversed(PurePosixPath(path).parts):
        named = {_split(word) for word in re.split(r"[^a-z]+", part.lower())} & {*SPLITS, EVALUATION}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _split(word: str) -> str:
    """The usual name of a split, `EVALUATION` for one that may be validation or test, or the word itself."""
    word = word.strip().lower()
    return ALIASES.get(word, word)
