"""What a dry run printed, kept on this machine and printed again as long as nothing that it rests on has changed.

Importing torch takes most of a forecast's time. So this module imports neither torch nor a wing, and what a text rests on is told
by sizes and times of files alone, without reading them: the house's code, plans and rows, kept checkpoints, installed packages,
the environment, the machine. Of a run that warns, or whose settings name files of the user's, nothing is kept.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from schema import whole_file
from schema.places import ROOT, cache_folder

FOLDER = "dry-runs"  # in the cache's folder, which may be emptied at any time
FLAG = "--dry-run"
HOUSE = ("bench.py", "baselines", "models", "results", "runner", "schema", "tasks")
UNREAD = {"__pycache__", ".locks", "tensorboard"}  # folders that change and decide nothing
PASSING = {"_", "SHLVL", "OLDPWD"}  # of the environment: what a shell counts for itself
COMPILERS = ("cc", "c++", "g++", "clang", "clang++")
TOKENIZERS = re.compile(r"bytes|gpt2|bpe:\d+")  # all others are files

_begun: list[tuple[Path, str]] = []  # where the text of this process is kept, and the stamp of what it rests on


def before(words: Sequence[str]) -> str | None:
    """What the same command printed before; None where it must be asked anew, which `keep` is then told of."""
    _begun.clear()
    if not is_asked(words):
        return None
    asked = hashlib.sha256(repr((os.getcwd(), list(words))).encode()).hexdigest()[:16]
    place, stamp = cache_folder() / FOLDER / f"{asked}.json", stamped()
    with suppress(OSError, ValueError, TypeError, KeyError):  # absent, damaged or another program's
        found = json.loads(place.read_bytes())
        if found["stamp"] == stamp and isinstance(found["text"], str):
            return found["text"]
    _begun.append((place, stamp))
    return None


def is_asked(words: Sequence[str]) -> bool:
    """Whether a command line is a dry run's."""
    return words[:1] == ["run"] and FLAG in words


def keep(text: str) -> None:
    """Keep what this command has printed, for `before`; nothing happens in a process that did not ask that."""
    for place, stamp in _begun:
        with suppress(OSError):  # a cache that cannot be written costs time alone
            whole_file.write(place, json.dumps({"stamp": stamp, "text": text}).encode())


def printed(text: str) -> int:
    """Print what was said before; the status of the command, 1 where nobody reads it to its end."""
    sys.stdout.reconfigure(errors="replace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the end
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End this process without taking down one by one what torch has built up, which takes most of a second."""
    atexit._run_exitfuncs()
    os._exit(printed("") or status)


@contextmanager
def silence() -> Iterator[list[str]]:
    """A block and the list of what it warned of, which is shown all the same."""
    told, show = [], warnings.showwarning

    def shown(message: Any, *where: Any, **named: Any) -> None:
        told.append(str(message))
        show(message, *where, **named)

    warnings.showwarning = shown
    try:
        yield told
    finally:
        warnings.showwarning = show


def of_the_house(settings: Iterable[Any]) -> bool:
    """Whether settings, however nested, name no file of the user's: no path, and no tokenizer but those by name."""
    return all(map(_is_plain, settings))


def _is_plain(value: Any, name: str = "") -> bool:
    if isinstance(value, dict):
        return all(_is_plain(inner, str(key)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner, name) for inner in value)
    if not isinstance(value, str):
        return True
    if name == "tokenizer":
        return bool(TOKENIZERS.fullmatch(value))
    return os.sep not in value and not os.path.exists(value)


def stamped() -> str:
    """A hash that another state of the house, of its rows and checkpoints, of packages, environment or machine changes."""
    parts = [
        [_told(path) for name in HOUSE for path in _files(ROOT / name)],
        [_told(path) for path in sorted(cache_folder().glob("checkpoints/*/*.json"))],
        [_told(Path(path)) for path in sys.path],  # where packages come and go, their folder's time changes
        sorted(item for item in os.environ.items() if item[0] not in PASSING),
        [sys.version, sys.executable, platform.machine(), platform.node(), os.cpu_count(), os.sysconf("SC_PHYS_PAGES")],
        [shutil.which(name) for name in COMPILERS],
        [sorted(map(str, Path("/dev").glob(name))) for name in ("nvidia*", "dxg", "kfd")],
        [sys.stdout.isatty(), sys.stdout.encoding, shutil.get_terminal_size()],
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _files(place: Path) -> Iterator[Path]:
    """A file, or all files below a folder, in order."""
    if place.is_file():
        yield place
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = sorted(set(inner) - UNREAD)
        yield from (Path(folder, name) for name in sorted(names))


def _told(path: Path) -> tuple[str, int, int] | str:
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return str(path), found.st_size, found.st_mtime_ns
