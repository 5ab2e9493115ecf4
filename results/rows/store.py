"""The record: one number is one row, one row is one JSON line, one cell's rows come into the file together."""

from __future__ import annotations

import json
import lzma
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import schema
from results.rows.row import COLUMNS, Identity, Measured, check, failure, key, now, one_attempt, rows
from schema import packed, whole_file

__all__ = [
    "COLUMNS",
    "Identity",
    "Measured",
    "RecordError",
    "append",
    "attempts",
    "check",
    "failure",
    "doubled",
    "key",
]
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
    """Add one cell's rows to a file under a lock: it is written anew with them and then put in its place, whole.

    A torn last line, and what stands of its cell, is left out. Raises ValueError for a row with other columns than `COLUMNS`
    or a value that JSON has no word for, RecordError when writing fails.
    """
    path = Path(path).resolve()  # a link to a file elsewhere stays one
    for row in rows:
        check(row)
    try:
        block = _text(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A row holds a value that JSON has no word for; give plain numbers: {error}.") from None
    if not block:
        raise ValueError("There are no rows to append; a cell that failed is recorded by failure().")
    try:
        with FileLock(lock_folder(path) / f"{path.name}.lock", timeout=LOCK_SECONDS):
            standing = path.read_bytes() if path.exists() else b""
            kept = _complete(standing)[0]
            whole_file.write(path, kept + (b"" if kept.endswith(b"\n") or not kept else b"\n") + block)
    except Timeout:
        raise RecordError(f"Another process has held the lock of {path} for {LOCK_SECONDS:.0f} s; end it.") from None
    except OSError as error:
        raise RecordError(
            f"Rows could not be written to {path}: {error.strerror}; nothing of the cell stands."
        ) from error


def read(
    path: Path,
    comparison: str | None = None,
    metrics: Collection[str] | None = None,
    devices: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """All complete rows, oldest first; none if there is no file, packed or not.

    A whole last row counts though its newline is gone; of a cell whose last row is torn no row counts, which a warning tells.
    Raises RecordError, naming file and line, for anything else that is no row, and, where `comparison` says whose rows these
    must be, for another's. With `metrics` or `devices`, the rows of these alone: what is wrong with others is not told.
    """
    path = Path(path)
    packed_path = path.with_name(path.name + ".xz")
    try:
        if not path.exists():
            data = packed.unpack(packed_path) if packed_path.exists() else b""
            return _rows(packed_path, data, comparison, metrics, devices)
        return _rows(path, path.read_bytes(), comparison, metrics, devices)
    except packed.PackedError as error:
        raise RecordError(f"{error} Take it again from where it came, or run and submit the comparison anew.") from None
    except OSError as error:
        raise RecordError(f"{error.filename or path} could not be read: {error.strerror}.") from error


def pack(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows to `path`.xz, which `read(path)` takes where there is no `path`: a tenth of the size, for committing."""
    whole_file.write(Path(path).with_name(Path(path).name + ".xz"), lzma.compress(_text(rows), preset=9))


def _text(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode("utf-8")


def _rows(
    path: Path,
    data: bytes,
    comparison: str | None,
    metrics: Collection[str] | None = None,
    devices: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    rows, (data, is_torn) = [], _complete(data)
    if is_torn:
        warnings.warn(f"The last row of {path} is torn, and its cell does not count: run it again.", stacklevel=4)
    for number, line in _lines(data, metrics, devices):
        source = f"{path}, line {number}"
        try:
            row = schema.parse_json(line, dict, source)
            check(row, source)
        except ValueError as error:
            raise RecordError(f"{error} Repair or delete that line.") from None
        if comparison is not None and row["comparison"] != comparison:
            of = schema.shortened(row["comparison"])
            raise RecordError(f"{source} is a row of the comparison {of}, not of {comparison!r}; take it out.")
        if (metrics is None or row["metric"] in metrics) and (devices is None or row["device"] in devices):
            rows.append(row)
    return rows


def _lines(data: bytes, *asked: Collection[str] | None) -> Iterator[tuple[int, bytes]]:
    """The lines, each with its number, that may be rows of the metrics and of the devices asked for: they hold the names.

    What all names of the first end in is searched for, as most lines of most files do not hold it. A line in which letters stand
    by their number may be a row of any.
    """
    letters = [b"\\u"] * (b"\\" in data and b"\\u" in data)  # one character is found much faster than two
    names = [[json.dumps(name).encode() for name in some] + letters for some in asked if some is not None]
    shared = os.path.commonprefix([name[::-1] for name in names[0]])[::-1] if names and names[0] else b""
    number, start, end = 1, 0, -1
    while 0 <= (found := data.find(shared, end + 1)) < len(data):
        before, start = start, data.rfind(b"\n", 0, found) + 1
        number += data.count(b"\n", before, start)
        end = data.find(b"\n", found)
        end = len(data) if end < 0 else end
        line = data[start:end]
        if all(any(name in line for name in some) for some in names):
            yield number, line


def _complete(data: bytes) -> tuple[bytes, bool]:
    """The lines that hold rows, and whether there were others: a torn last one, and its cell's where its key can be read."""
    end = data.rfind(b"\n") + 1
    last = data[end:]  # what follows the last newline: nothing, a row whose newline is gone, or a torn one
    if last.strip() and not _is_torn(last):
        return data, False
    is_torn, data = bool(last), data[:end]
    if not last.strip() and data and _is_torn(_last_line(data)):
        last, data = _without_last(data)
        is_torn |= bool(last)
    torn = _cell(last)
    while torn and data and _cell(_last_line(data)) == torn:
        data = _without_last(data)[1]
    return data, is_torn


def _last_line(data: bytes) -> bytes:
    """The last line of lines that each end in a newline, without it."""
    return data[data.rfind(b"\n", 0, -1) + 1 : -1]


def _without_last(data: bytes) -> tuple[bytes, bytes]:
    """The last line, and the others."""
    last = _last_line(data)
    return last, data[: -len(last) - 1]


def _cell(line: bytes) -> str | None:
    """The key that a line names, even a torn one."""
    found = re.match(rb'\s*\{.{0,2000}?"cell": ?"([0-9A-Za-z_-]{1,64})"', line)
    return found and found[1].decode()


def statuses(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The status of every cell, by key: "ok" if any attempt measured something, else "failed"."""
    found: dict[str, str] = {}
    for row in rows:
        if found.get(row["cell"]) != "ok":
            found[row["cell"]] = row["status"]
    return found


def attempts(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count, each once: of each cell's attempts the last that measured something, else the last.

    Raises RecordError where one attempt tells two numbers of one thing, of which one must be wrong.
    """
    by_cell: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        by_cell.setdefault(row["cell"], {}).setdefault(row["when"], []).append(row)
    kept: list[dict[str, Any]] = []
    for tries in by_cell.values():
        newest_first = [tries[when] for when in sorted(tries, reverse=True)]
        kept += _once(next((rows for rows in newest_first if any(r["status"] == "ok" for r in rows)), newest_first[0]))
    return kept


def doubled(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that repeat an earlier one of the same attempt."""
    seen: set[tuple] = set()
    return [row for row in rows if (it := _measurement(row)) in seen or seen.add(it)]


def distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all attempts, each once."""
    return list({_measurement(row): row for row in reversed(list(rows))}.values())[::-1]


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        first = found.setdefault(_measurement(row), row)
        if first is not row and (first["value"], first["count"]) != (row["value"], row["count"]):
            told = f"{row['task']}, {row['model']}, seed {row['seed']}, {row['metric']} {row['where'] or ''}".strip()
            raise RecordError(
                f"Cell {row['cell']} tells two numbers of one thing, {first['value']} and {row['value']} ({told}); "
                "delete the wrong row."
            )
    return list(found.values())


def _measurement(row: dict[str, Any]) -> tuple:
    """What tells a row from the others of its file; two with an equal one are one measurement."""
    where = tuple(sorted(row["where"].items(), key=str))
    name = row["settings"].get("variant", "")
    return row["cell"], row["when"], row["model"], name, row["metric"], where, row["status"], row["reason"]


def _is_torn(line: bytes) -> bool:
    """Whether a last line is no whole JSON object; what else may be wrong with one is told, not passed over."""
    try:
        return not isinstance(json.loads(line), dict)
    except RecursionError:
        return False
    except ValueError:
        return True
