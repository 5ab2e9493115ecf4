"""Questions of a dry run found out by several processes at once, before it asks them one after another.

What they find is put among what is remembered (`remembered`), so that the dry run's own way through its cells, its refusals and
its warnings stay as they are: it only finds the answers there. What fails or warns here is left to it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from results.cell import Cell
from runner import costs
from runner.build import settings_of
from runner.preflight import capacity, remembered
from runner.preflight.refusals import structure
from runner.schedule.forecast import files_of_rows, readable

MOST = 4  # processes: further ones would wait for what the parent must do alone
FEWEST = 4  # questions for which a process is worth its start
NUMBER = 4  # bytes of a question's number in the pipe from which all take the next

Question = Callable[[], Any]


def questions(cells: Sequence[Cell], results: Path, elsewhere: bool) -> list[Question]:
    """What a dry run of these cells will ask: the rows below `results` that timed something, and its models, each once.

    None where a cell asks for more than there can be: that is told before a model is built. `elsewhere` as in `check_cells`.
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
    files = [partial(readable, path) for path in files_of_rows(results)]
    return [*files, *(partial(_of_model, alike) for alike in ours)]


def _is_kept(cell: Cell) -> bool:
    return remembered.is_of_the_house(cell.model, settings_of(cell))


def _of_model(cells: Sequence[Cell]) -> None:
    """What is asked of the one model of these cells, each of another task."""
    structure(cells[0])
    for cell in cells:
        costs.of_cell(cell, checkpoints=None)


@dataclass(frozen=True)
class _Helper:
    """A process that answers too, and where it writes what it found."""

    pid: int
    answers: int


def ask(questions: Sequence[Question]) -> None:
    """Ask all, in this process and in copies of it, each taking the next; what they remember is remembered here.

    A question remembers by itself, by `remembered.of_model` and its like; what it gives is not looked at. The first that raises
    ends the asking: the dry run will come to it and say why. Copies are made on Linux alone, where torch bears it, of a process
    of one thread.
    """
    helpers: list[_Helper] = []
    next_one, supply = os.pipe()
    try:
        os.write(supply, b"".join(number.to_bytes(NUMBER) for number in range(_at_once(questions))))
        os.close(supply)
        helpers = [_started(questions, next_one) for _ in range(_copies(len(questions)))]
        if _answer(questions, next_one):
            for helper in helpers:
                _take(helper)
    finally:
        os.close(next_one)
        for helper in helpers:
            _end(helper)


def _at_once(questions: Sequence[Question]) -> int:
    """How many are asked ahead: as many numbers as a pipe holds for certain, the rest is asked in turn."""
    return min(len(questions), 4096 // NUMBER)


def _copies(questions: int) -> int:
    """Processes beside this one that answer so many questions."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return 0
    return max(0, min(MOST, len(os.sched_getaffinity(0)), questions // FEWEST) - 1)


def _answer(questions: Sequence[Question], next_one: int) -> bool:
    """Answer what no other has taken until nothing is left; False where one failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while number := os.read(next_one, NUMBER):
            try:
                questions[int.from_bytes(number)]()
            except Exception:  # the dry run will meet it and tell it in its place
                return False
    return True


def _started(questions: Sequence[Question], next_one: int) -> _Helper:
    answers, mine = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that torch's libraries may have and a copy has not: it needs none
        pid = os.fork()
    if pid:
        os.close(mine)
        return _Helper(pid, answers)
    try:  # in the copy: it prints nothing, runs nobody's end, and says what it found in its pipe
        os.close(answers)
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        if _answer(questions, next_one):
            with os.fdopen(mine, "wb") as out:
                out.write(json.dumps(remembered.news()).encode())
    finally:
        os._exit(0)


def _take(helper: _Helper) -> None:
    """Remember what another process found; nothing where it failed or was killed."""
    with os.fdopen(os.dup(helper.answers), "rb") as found, suppress(ValueError):
        remembered.learn(json.loads(found.read()))


def _end(helper: _Helper) -> None:
    os.close(helper.answers)
    with suppress(ProcessLookupError):
        os.kill(helper.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(helper.pid, 0)
