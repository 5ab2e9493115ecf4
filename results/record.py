"""The record: one number is one row, one row is one JSON line, one cell's rows are one append."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from results.identity import COLUMNS, Identity, Measured, check, failure, key, now, one_attempt, rows

__all__ = ["COLUMNS", "Identity", "Measured", "RecordError", "append", "attempts", "check", "failure", "frame", "key"]
__all__ += ["lock_folder", "now", "one_attempt", "read", "rows", "statuses"]

LOCK_SECONDS = 120.0


class RecordError(RuntimeError):
    """Rows that cannot be read or written; the message says what to do."""


def lock_folder(path: Path) -> Path:
    """The folder of locks beside a rows file; it ignores itself in git."""
    folder = Path(path).parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append one cell's rows under a lock, all or none, on the disk when this returns.

    What an interrupted append left behind (a torn line, half of a cell's rows) is cut first. Raises ValueError for a
    row with other columns than `COLUMNS` or a value that JSON has no word for, RecordError when writing fails.
    """
    path = Path(path)
    for row in rows:
        check(row)
    try:
        block = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise ValueError(f"A row holds a value that JSON has no word for; give plain numbers: {error}.") from None
    if not block:
        raise ValueError("There are no rows to append; a cell that failed is recorded by failure().")
    try:
        lock = FileLock(lock_folder(path) / f"{path.name}.lock", timeout=LOCK_SECONDS)
        with lock, open(path, "a+b") as file:
            _recover(path, file)
            _write(path, file, block)
    except Timeout:
        raise RecordError(f"Another process has held the lock of {path} for {LOCK_SECONDS:.0f} s; end it.") from None
    except OSError as error:
        raise RecordError(
            f"Rows could not be written to {path}: {error.strerror}; nothing of the cell stands."
        ) from error


def read(path: Path) -> list[dict[str, Any]]:
    """All complete rows, oldest first; none if there is no file, packed or not. What a broken append left is passed over.

    Raises RecordError, naming file and line, for anything else that is no row.
    """
    path = Path(path)
    packed = path.with_name(path.name + ".xz")
    if not path.exists():
        return _rows(packed, lzma.decompress(packed.read_bytes())) if packed.exists() else []
    intent = _intent(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror}.") from error
    if intent and len(data) < intent[0] + intent[1]:
        data = data[: intent[0]]
    return _rows(path, data)


def pack(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows to `path`.xz, which `read(path)` takes where there is no `path`: a tenth of the size, for committing."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    packed = Path(path).with_name(Path(path).name + ".xz")
    packed.parent.mkdir(parents=True, exist_ok=True)
    packed.write_bytes(lzma.compress(text.encode("utf-8"), preset=9))


def _rows(path: Path, data: bytes) -> list[dict[str, Any]]:
    lines = data.split(b"\n")[:-1]  # what follows the last newline is nothing, or torn
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is None and number == len(lines):
            break
        if row is None:
            raise RecordError(f"{path}, line {number} is not a row; repair or delete that line.")
        try:
            check(row)
        except ValueError as error:
            raise RecordError(f"{path}, line {number}: {error}") from None
        rows.append(row)
    return rows


def frame(path: Path) -> pd.DataFrame:
    """The rows of a file as a table with the columns of `COLUMNS`."""
    return pd.DataFrame(read(path), columns=list(COLUMNS))


def statuses(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The status of every cell, by key: "ok" if any attempt measured something, else "failed"."""
    found: dict[str, str] = {}
    for row in rows:
        if found.get(row["cell"]) != "ok":
            found[row["cell"]] = row["status"]
    return found


def attempts(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count: of each cell's attempts the last that measured something, else the last."""
    by_cell: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        by_cell.setdefault(row["cell"], {}).setdefault(row["when"], []).append(row)
    kept: list[dict[str, Any]] = []
    for tries in by_cell.values():
        newest_first = [tries[when] for when in sorted(tries, reverse=True)]
        kept += next((rows for rows in newest_first if any(r["status"] == "ok" for r in rows)), newest_first[0])
    return kept


def _write(path: Path, file: Any, block: bytes) -> None:
    """Write after noting the intent, so that a death in between leaves no half of a cell that looks whole."""
    end = file.seek(0, os.SEEK_END)
    note = _note(path)
    with open(note, "w", encoding="utf-8") as intent:
        json.dump([end, len(block)], intent)
        intent.flush()
        os.fsync(intent.fileno())
    try:
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.truncate(path, end)
        raise
    note.unlink()


def _recover(path: Path, file: Any) -> None:
    """Cut what an interrupted append left: down to the noted length, and any torn last line."""
    size = file.seek(0, os.SEEK_END)
    intent = _intent(path)
    if intent and size < intent[0] + intent[1]:
        size = min(size, intent[0])
    file.seek(0)
    data = file.read(size)
    end = data.rfind(b"\n") + 1
    last = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    if end and _parse(data[last : end - 1]) is None:
        end = last
    file.truncate(end)
    _note(path).unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return lock_folder(path) / f"{path.name}.appending"


def _intent(path: Path) -> tuple[int, int] | None:
    note = path.parent / ".locks" / f"{path.name}.appending"
    try:
        end, length = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # none noted, or torn itself: then nothing was appended after it
    return end, length


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
