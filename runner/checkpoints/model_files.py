"""The model files that the user of this machine has named by `--models`: a checkpoint of one of them finds it again.

The list lies in the user's state folder (`XDG_STATE_HOME`, or `~/.local/state`), never in a folder of data: a checkpoint may
come from anybody, and what it says of files is believed only where the user has already run them here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

import schema
from schema import whole_file

MOST = 1000  # files that are remembered, the newest


def _list() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "titanomachy" / "model-files.json"


def named() -> list[Path]:
    """The files that were named here, oldest first; none where the list is missing or is no list."""
    try:
        return [Path(path) for path in schema.read_json(_list(), list[str])]
    except (OSError, RuntimeError, ValueError):  # RuntimeError: there is no home
        return []


def name(files: Iterable[str | Path]) -> None:
    """Remember files that the user has named. Where nothing can be written, a later `ask` wants them named again."""
    new = [str(Path(file).expanduser().resolve()) for file in files]
    if not new:
        return
    with suppress(OSError, RuntimeError):
        path = _list()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=5):
            every = [*(str(old) for old in named() if str(old) not in new), *new][-MOST:]
            whole_file.write(path, json.dumps(every, indent=1).encode("utf-8"))


def among(files: Iterable[str]) -> list[Path]:
    """Those of `files` and packages, which somebody else may have written, that were named here and are still there."""
    known = set(named())
    resolved = [Path(file).expanduser().resolve() for file in files]
    return [file for file in resolved if file in known and file.exists()]
