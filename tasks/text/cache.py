"""Where prepared corpora, tokenizers and tokens are kept: `.cache/` in the checkout, or what TITANOMACHY_CACHE names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from schema.places import CACHE, cache_folder

VARIABLE = CACHE
UNFINISHED = "unfinished-"


def folder() -> Path:
    """The cache's folder; it may not be there yet."""
    return cache_folder()


def kept(place: str, make: Callable[[Path], None]) -> Path:
    """The file or folder at `place` in the cache; if it is not there, `make` writes it to the path that it is given.

    Of several processes one makes it and the others wait; it appears whole or not at all.
    """
    path = folder() / place
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.exists():
            unfinished = path.with_name(UNFINISHED + path.name)  # keeps the ending, which tells the format
            _remove(unfinished)
            try:
                make(unfinished)
                unfinished.replace(path)
            finally:
                _remove(unfinished)
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
