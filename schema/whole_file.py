"""Files that are put in their place whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, to the disk, and then give it its own; what stood there stays until then.

    Nothing half-written is left where the disk is full; what a process that was killed left, the next writing takes away.
    Whoever may write one file at the same time as others holds a lock. Raises OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("unfinished-" + path.name)
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
