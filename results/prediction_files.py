"""Raw predictions on disk: one packed file of JSON lines for each cell, beside the rows that were marked from it."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.identity import canonical

FOLDER = "predictions"
ENDING = ".jsonl.xz"
Record = dict[str, Any]


class PredictionFileError(ValueError):
    """A file of predictions that cannot be read; the message says which and why."""


def path_of(folder: Path, cell: str) -> Path:
    return Path(folder) / f"{cell}{ENDING}"


def write(folder: Path, cell: str, records: Sequence[Record]) -> Path | None:
    """Write one cell's records, whole or not at all, in the place of earlier ones; nothing where there are none."""
    path = path_of(folder, cell)
    if not records:
        path.unlink(missing_ok=True)
        return None
    lines = [canonical({"cell": cell, "records": len(records)}), *map(canonical, records)]
    data = lzma.compress("".join(line + "\n" for line in lines).encode("utf-8"), preset=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path


def read(folder: Path, cell: str) -> list[Record] | None:
    """A cell's records, None if there is no file; PredictionFileError if it is damaged or another cell's."""
    path = path_of(folder, cell)
    if not path.exists():
        return None
    try:
        head, *records = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    except (lzma.LZMAError, ValueError) as error:
        raise PredictionFileError(f"{path.name} is damaged ({error}).") from None
    if head != {"cell": cell, "records": len(records)}:
        raise PredictionFileError(f"{path.name} holds {len(records)} records and says that it is {head}.")
    return records


def digest(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
