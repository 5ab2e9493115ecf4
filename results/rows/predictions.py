"""Raw predictions on disk: one packed file of JSON lines for each cell, beside the rows that were scored from it."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import schema
from results.rows.columns import Plain
from results.rows.row import canonical
from schema import packed, whole_file

FOLDER = "predictions"
ENDING = ".jsonl.xz"
Record = dict[str, Any]


class PredictionFileError(ValueError):
    """A file of predictions that cannot be read; the message says which and why."""


def path_of(folder: Path, cell: str) -> Path:
    return Path(folder) / f"{cell}{ENDING}"


def pack(cell: str, records: Sequence[Record]) -> bytes:
    """One cell's records as the bytes of its file. Raises ValueError for what JSON has no word for."""
    lines = [canonical({"cell": cell, "records": len(records)}), *map(_line, records)]
    return lzma.compress("".join(line + "\n" for line in lines).encode("utf-8"), preset=6)


def _line(record: Record) -> str:
    try:
        return canonical(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The answers hold a value that JSON has no word for ({error}).") from None


def store(folder: Path, cell: str, data: bytes | None) -> Path | None:
    """Write what `pack` made, whole or not at all, in the place of earlier records; None leaves no file."""
    path = path_of(folder, cell)
    if data is None:
        path.unlink(missing_ok=True)
        return None
    whole_file.write(path, data)
    return path


def write(folder: Path, cell: str, records: Sequence[Record]) -> Path | None:
    """Write one cell's records, whole or not at all, in the place of earlier ones; nothing where there are none."""
    return store(folder, cell, pack(cell, records) if records else None)


def read(folder: Path, cell: str) -> list[Record] | None:
    """A cell's records, None if there is no file; PredictionFileError if it is damaged or another cell's."""
    path = path_of(folder, cell)
    if not path.exists():
        return None
    try:
        lines = packed.unpack(path).splitlines()
    except packed.PackedError as error:
        raise PredictionFileError(str(error)) from None
    except OSError as error:
        raise PredictionFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not lines:
        raise PredictionFileError(f"{path.name} is damaged (it is empty).")
    head, *records = [
        schema.parse_json(line, dict[str, Plain], f"{path.name}, line {number}", error=PredictionFileError)
        for number, line in enumerate(lines, 1)
    ]
    if head != {"cell": cell, "records": len(records)}:
        told = schema.shortened(head)
        raise PredictionFileError(f"{path.name} holds {len(records)} records and says that it is {told}.")
    return records


def digest(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
