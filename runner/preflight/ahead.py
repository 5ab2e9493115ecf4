"""Questions of a dry run found out by several processes at once, before it asks them one after another.

What they find is put among what is remembered (`remembered`), so that the dry run's own way through its cells, its refusals and
its warnings stay as they are: it only finds the answers there. What fails or warns here is left to it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from results.cell import Cell
from runner import costs
from runner.build import settings_of
from runner.checkpoints.trained_model import CheckpointSettings
from runner.preflight import capacity, remembered
from runner.preflight.refusals import structure
from runner.schedule.forecast import files_of_rows, readable

MOST = 4  # processes: further ones would wait for what the parent must do alone
FEWEST = 4  # questions for which a process is worth its start
END_WITH_PARENT = 1  # prctl's name of it is PR_SET_PDEATHSIG

Question = Callable[[], Any]


def questions(
    cells: Sequence[Cell],
    results: Path,
    elsewhere: bool,
    checkpoints: CheckpointSettings | None = None,
    key: Callable[[Cell], str] | None = None,
) -> list[Question]:
    """What a dry run of these cells will ask: the rows below `results` that timed something, and its models, each once.

    Of models whether they are among `checkpoints` too, and the `key` of a cell of each of their tasks, if one is given. None
    where a cell asks for more than there can be: that is told before a model is built. `elsewhere` as in `check_cells`.
    """
    models: dict[tuple[str, ...], dict[tuple[str, ...], Cell]] = {}
    try:
        for cell in cells:
            capacity.check_cell(cell, elsewhere)
            if cell.model and cell.kind != "contest":
                tasks = models.setdefault((cell.model, repr(cell.settings), repr(cell.size), cell.provider), {})
                tasks.setdefault((cell.kind, cell.task, repr(cell.task_settings)), cell)
        ours = [alike for alike in map(list, map(dict.values, models.values())) if _is_kept(alike[0])]
    except Exception:  # the dry run will meet it and tell it in its place
        return []
    devices = {cell.device for cell in cells}
    files = [partial(readable, path, devices) for path in files_of_rows(results)]
    models_first = [partial(_of_model, alike, checkpoints, key) for alike in ours]
    return [*models_first, *files]  # the short ones last: all end together


def _is_kept(cell: Cell) -> bool:
    return remembered.is_of_the_house(cell.model, settings_of(cell))


def _of_model(cells: Sequence[Cell], checkpoints: CheckpointSettings | None, key: Callable[[Cell], str] | None) -> None:
    """What is asked of the one model of these cells, each of another task."""
    structure(cells[0])
    for cell in cells:
        costs.of_cell(cell, checkpoints)
        if key is not None:
            key(cell)


def ask(questions: Sequence[Question]) -> None:
    """Ask all in copies of this process, each taking the next, and remember here what they remember.

    A question remembers by itself, by `remembered.of_model` and its like; what it gives is not looked at. The first that raises
    or kills its process ends the asking: the dry run asks what is left itself, and says why where it fails.
    """
    if (copies := _copies(len(questions))) < 2:
        return
    pool = ProcessPoolExecutor(copies, get_context("fork"), initializer=_begin, initargs=(questions,))
    try:
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter(
                "ignore"
            )  # of threads that torch's libraries may have and a copy has not: it needs none
            for found in pool.map(_found, range(len(questions))):
                remembered.learn(found)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _copies(questions: int) -> int:
    """Processes that answer so many questions. They are made on Linux alone, where torch bears it, of a process of one thread."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return 0
    return min(MOST, len(os.sched_getaffinity(0)), questions // FEWEST)


_asked: Sequence[Question] = ()  # in a copy


def _begin(questions: Sequence[Question]) -> None:
    """Begin a copy, which ends with this process however that ends, and on Ctrl-C leaves the last word to it."""
    global _asked
    _asked = questions
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the copies are as many as the processors


def _found(number: int) -> dict[str, list]:
    """What a question was answered, in a copy; nothing is shown of what it warns, as the dry run will ask that again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _asked[number]()
    return remembered.news()
