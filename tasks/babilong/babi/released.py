"""The released bAbI files (Weston et al., arXiv 1502.05698), as a source of questions beside our own simulator.

A source is a folder or a .tar archive (plain or compressed), or `$VARIABLE` that names one, with files named as released,
`qa1_..._train.txt` and `qa1_..._test.txt`; `..._valid.txt` is used where it is there, else every tenth story of the
training file is kept for validation.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from schema import message
from tasks.babilong.babi.story import Item

FILE_NAME = re.compile(r"(qa\d+)_.*_(train|valid|test)\b.*\.txt")
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
VALIDATION = 10  # one training story in so many is kept for validation where no file is


class Story(NamedTuple):
    """All facts of one story, and its questions."""

    facts: list[str]
    items: list[Item]


class SourceError(ValueError):
    """A source that is not there, or that holds no bAbI files, or a line that is none of theirs."""


def parse(text: str, name: str = "the file") -> list[Story]:
    """Stories of one released file: `ID fact` or `ID question<TAB>answer<TAB>IDs of the supporting facts`."""
    stories: list[Story] = []
    numbers: dict[str, int] = {}
    for place, line in enumerate(text.splitlines(), 1):
        try:
            number, rest = line.split(" ", 1)
            if int(number) == 1:
                stories.append(Story([], []))
                numbers = {}
            facts, items = stories[-1]
            if "\t" in rest:
                question, answer, supports = rest.split("\t")
                items.append(Item(tuple(facts), question, answer, tuple(numbers[i] for i in supports.split())))
            else:
                numbers[number] = len(facts)
                facts.append(rest)
        except (ValueError, KeyError, IndexError):
            raise SourceError(f"Line {place} of {name} is no line of bAbI ({line[:60]!r}): repair the file.") from None
    return stories


def items(source: str, question: str, split: str) -> tuple[Item, ...]:
    """Every question of one task in one split, in file order. Raises SourceError."""
    return _read(source, version(source)).get((question, split), ())


def data_hash(source: str) -> str:
    """sha256 of every question of a source."""
    return hashlib.sha256(repr(sorted(_read(source, version(source)).items())).encode()).hexdigest()


def version(source: str) -> tuple:
    """The state of a source's files, for caches to notice a change."""
    path = _place(source)
    if not os.path.expandvars(source).strip() or not path.exists():  # "" would be the folder that one stands in
        advice = "let the variable name" if source.startswith("$") else "name"
        raise SourceError(
            f"There is no bAbI data at '{source}': {advice} a folder or a .tar archive of the released files."
        )
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)


def _place(source: str) -> Path:
    """The folder or archive of a source; `~` and `$VARIABLE` are read as a shell does."""
    return Path(os.path.expandvars(source)).expanduser()


@lru_cache(maxsize=2)
def _read(source: str, _: tuple) -> dict[tuple[str, str], tuple[Item, ...]]:
    stories: dict[tuple[str, str], list[Story]] = {}
    for name, text in _files(_place(source)):
        if match := FILE_NAME.fullmatch(name):
            question, split = match.groups()
            stories.setdefault((question, SPLITS[split]), []).extend(parse(text, name))
    if not stories:
        raise SourceError(f"'{source}' holds no file named as bAbI's are (qa1_..._train.txt, qa1_..._test.txt).")
    for question in {question for question, _ in stories}:
        told = stories.get((question, "train"), [])
        if (question, "validation") not in stories and told:
            stories[question, "validation"] = told[::VALIDATION]
            stories[question, "train"] = [story for place, story in enumerate(told) if place % VALIDATION]
    return {key: tuple(item for story in told for item in story.items) for key, told in stories.items()}


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every text file, in order of names."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.txt")):
                yield file.name, file.read_text(encoding="utf-8")
            return
        with tarfile.open(path) as archive:
            for member in sorted(archive, key=lambda member: member.name):
                if member.isfile() and member.name.endswith(".txt"):
                    yield Path(member.name).name, archive.extractfile(member).read().decode("utf-8")
    except (tarfile.TarError, OSError, UnicodeDecodeError, EOFError) as error:
        raise SourceError(
            f"'{path}' cannot be read as bAbI data ({message(error)}): give the released files."
        ) from None
