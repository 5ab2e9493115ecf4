"""The pages of the project, and the commands that they tell a reader to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from schema.places import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "results" / "README.md",
    ROOT / "results" / "published" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TYPED = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:python |\./)bench\.py (?P<words>.*)$")
QUOTED = re.compile(r"`(?:[A-Z_]+=\S+ )?(?:python |\./)?bench\.py (?P<words>[^`]*)`")
COMMENT = re.compile(
    r"( {2,}| \(pip | # ).*$"
)  # what a line says of its command: two spaces, a bracket or a # before it


class Command(NamedTuple):
    """A command of a page: the page's place in the project, and the words behind bench.py."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def name_of(page: Path) -> str:
    """A page's place in the project."""
    return page.relative_to(ROOT).as_posix()


def commands() -> list[Command]:
    """Every call of bench.py on every page, in lines of their own and in the text, each once."""
    found = [Command(name_of(page), words) for page in PAGES for words in commands_in(page.read_text(encoding="utf-8"))]
    return list(dict.fromkeys(found))


def commands_in(text: str) -> Iterator[tuple[str, ...]]:
    """The words behind bench.py of each call in a page."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    typed = [COMMENT.sub("", match["words"]) for line in lines if (match := TYPED.match(line))]
    quoted = [" ".join(match["words"].split()) for match in QUOTED.finditer(text)]
    for words in (*typed, *quoted):
        if words.strip():
            yield tuple(shlex.split(words))


def code_blocks(page: Path, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
