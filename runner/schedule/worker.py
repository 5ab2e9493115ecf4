"""What happens inside a worker process: claim a cell, measure it, record it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from results.cell import Cell
from results.report.curves import FOLDER, path_of
from results.rows import predictions as prediction_files
from results.rows import store
from results.rows.row import Identity, Measured
from runner.schedule.curves import EVERY, recorded
from schema import message
from schema.terms import Progress
from schema.words import warn_in_one_line

Measure = Callable[[Cell, Progress], "Measured | list[dict[str, Any]]"]

LONGEST_REASON = 500  # characters
PROGRESS_SECONDS = 0.1  # a loop may report each step; a terminal needs ten a second
_queue: Any = None


def claim(rows_path: Path, key: str) -> FileLock:
    """The lock that says "this cell is being measured"; the system frees it when its holder dies."""
    return FileLock(store.lock_folder(rows_path) / f"{key}.claim")


def start(
    queue: Any, parent: int, environment: dict[str, str], initializer: Callable[..., None] | None, arguments: Sequence
) -> None:
    """Prepare a fresh worker: its threads, the watch over its parent, and whatever the caller needs imported."""
    global _queue
    _queue = queue
    queue.cancel_join_thread()  # a reader that is gone must not keep a worker from ending
    os.environ.update(environment)
    warn_in_one_line()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def work(
    cell: Cell, identity: Identity, rows_path: Path, measure: Measure, retry_before: str | None
) -> tuple[str, list]:
    """Measure and record one cell; returns ("measured" | "stands" | "claimed", its rows).

    "claimed": another run is measuring it. Whatever `measure` raises becomes a failed row.
    """
    lock = claim(rows_path, identity.key)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return "claimed", []
    try:
        standing = [row for row in store.read(rows_path) if row["cell"] == identity.key]
        if stands(standing, retry_before):
            return "stands", standing
        _send(identity.key, "started", {})
        with recorded(path_of(rows_path.parent / FOLDER, identity.key)) as recorder:
            rows, predictions = measured(cell, identity, measure, recorder.news)
            recorder.rows(rows)
        keep(rows_path, identity.key, rows, predictions)
        return "measured", rows
    finally:
        lock.release()


def stands(rows: list[dict[str, Any]], retry_before: str | None) -> bool:
    """Whether a cell with these rows need not be measured; one that failed before `retry_before` (ISO time) must."""
    if any(row["status"] == "ok" for row in rows):
        return True
    return bool(rows) and (retry_before is None or max(row["when"] for row in rows) >= retry_before)


def measured(
    cell: Cell, identity: Identity, measure: Measure, told: Progress | None = None
) -> tuple[list[dict[str, Any]], bytes | None]:
    """A cell's rows and its predictions as their file's bytes (None without any), both ready to be written.

    `told` is given all that the cell reports, of which a terminal is given ten words a second. Whatever `measure` raises, and
    whatever it gives that no file can hold, becomes a failed row.
    """
    try:
        result = measure(cell, _reporter(identity.key, told))
        rows = store.rows(cell, identity, result) if isinstance(result, Measured) else result
        if not rows or any(row["cell"] != identity.key for row in rows):
            raise ValueError("measure() must return at least one row, each with the key of the cell it was given")
        for row in rows:
            store.check(row)
        predictions = result.predictions if isinstance(result, Measured) else ()
        return rows, prediction_files.pack(identity.key, predictions) if predictions else None
    except BaseException as error:  # what a model does wrong, sys.exit too, is a result of the comparison, not its end
        return store.failure(cell, identity, reason(error)), None


def keep(rows_path: Path, key: str, rows: list[dict[str, Any]], predictions: bytes | None) -> None:
    """Write what was measured: the predictions, then the rows, whose presence says that the cell stands.

    Raises RecordError where the disk does not take them: that is no fault of the cell's.
    """
    folder = rows_path.parent / prediction_files.FOLDER
    try:
        prediction_files.store(folder, key, predictions)
    except OSError as error:
        raise store.RecordError(
            f"Predictions could not be written to {folder}: {error.strerror}; nothing of the cell stands."
        ) from error
    store.append(rows_path, rows)


def listen(queue: Any) -> None:
    """Tell `queue`, by its `put`, what cells measured here report: (key, kind, progress)."""
    global _queue
    _queue = queue


def reason(error: BaseException) -> str:
    """One sentence for a failed row."""
    text = message(error, LONGEST_REASON)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return "out of memory"
    if isinstance(error, FloatingPointError):
        return f"diverged: {text}" if text else "diverged"
    loaded = sys.modules.get("models.user_file")  # without it no user's file is there to be blamed
    place = loaded.place_of(error) if loaded else None
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + (f" ({place})" if place else "")


def _reporter(key: str, told: Progress | None) -> Progress:
    last = [0.0]

    def report(progress: dict[str, Any]) -> None:
        if told is not None:
            told(progress)
        if EVERY in progress:
            return
        now = time.monotonic()
        if now - last[0] >= PROGRESS_SECONDS:
            last[0] = now
            _send(key, "progress", progress)

    return report


def _send(key: str, kind: str, progress: dict[str, Any]) -> None:
    _queue.put((key, kind, progress))


def _watch(parent: int) -> None:
    """End this process soon after its parent, however that died."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
