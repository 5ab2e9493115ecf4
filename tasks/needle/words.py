"""Lists of English words for the keys of needles."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

from schema.places import ROOT

FOLDER = ROOT / "tasks" / "data"


class Words(NamedTuple):
    """Adjectives and nouns, each sorted and distinct."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]

    def hash(self) -> str:
        """sha256 of the lists."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()


@lru_cache(maxsize=2)
def words(source: str = "own") -> Words:
    """The word lists: "own" (in the repository) or "wonderwords" (RULER's, from the package of that name)."""
    if source == "own":
        return Words(*(tuple((FOLDER / f"{kind}.txt").read_text("utf-8").split()) for kind in ("adjectives", "nouns")))
    if source != "wonderwords":
        raise ValueError(f"There are no word lists '{source}': choose 'own' or 'wonderwords'.")
    try:
        from wonderwords import RandomWord
    except ImportError as error:
        raise ValueError("The word lists of wonderwords are not installed: pip install wonderwords.") from error
    lists = (RandomWord().filter(include_categories=[kind]) for kind in ("adjective", "noun"))
    return Words(*(tuple(sorted(set(each))) for each in lists))


def installed() -> bool:
    """Whether RULER's lists are here."""
    return find_spec("wonderwords") is not None
