"""A measure() that behaves as a user's code may: it ends its process, leaves threads and children, says what is no word."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from results.cell import Cell
from results.rows import store
from runner.schedule import worker
from tests.support import fake_measure
from tests.support.fake_measure import identify  # noqa: F401  as the tests name it


class Rude(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def rude(name: str, how: str = "", **settings) -> Cell:
    """A cell of a user's code; `how` names one of the ways below."""
    return dataclasses.replace(fake_measure.cell(name, **settings, how=how), model_files=("/somewhere/mine.py",))


def measure(cell: Cell, progress) -> store.Measured:
    how = cell.settings.get("how", "")
    progress({"step": 1, "steps": 2, "loss": float("nan"), "tokens_per_second": 10.0})
    if how == "thread":
        threading.Thread(target=time.sleep, args=(600,)).start()
    elif how == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
        Path(cell.settings["pid"]).write_text(str(child.pid))
    elif how == "fork":
        if (child := os.fork()) == 0:
            time.sleep(600)
        Path(cell.settings["pid"]).write_text(str(child))
    else:
        end(how)
    return fake_measure.measure(cell, progress)


def end(how: str) -> None:
    if how == "os._exit(0)":
        os._exit(0)
    elif how == "os._exit(3)":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)  # is ignored
    elif how == "closes":
        os.closerange(3, 256)
        time.sleep(600)
    elif how == "babbles":
        worker._queue.writer.send_bytes(b"[[[")
        time.sleep(600)
    elif how:
        raise {
            "sys.exit(0)": SystemExit(0), "KeyboardInterrupt": KeyboardInterrupt(), "Rude": Rude(),
            "long": ValueError("line one\nline two\n" + "x" * 5000),
        }[how]  # fmt: skip
