"""A measure() whose cells do what their settings say: a stand-in for models in tests of the scheduler."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path

from results.cell import Cell
from results.rows import store
from runner.schedule import schedule

# read when a worker imports this module, as numeric libraries read it
THREADS_AT_IMPORT = float(os.environ.get("OMP_NUM_THREADS", 0))


def prepare() -> None:
    """An initializer: naming it makes a worker import this module before anything of the scheduler runs there."""


def cell(name: str, kind: str = "training", seed: int = 0, **settings) -> Cell:
    return Cell(
        comparison="fake", kind=kind, model=name, settings=settings, task="needle", task_settings={"length": 64},
        size={"width": 64, "depth": 2, "heads": 4}, budget={"steps": 10, "batch_tokens": 64}, seed=seed, lr=0.003,
        dtype="float32", provider="auto", device="cpu", threads=1,
    )  # fmt: skip


def identify(cell: Cell) -> store.Identity:
    return store.Identity(store.key(cell), family="first_generation", family_order=1)


def measure(cell: Cell, progress) -> store.Measured:
    settings = cell.settings
    if "log" in settings:
        with open(settings["log"], "a") as log:
            log.write(f"{cell.model} {os.getpid()}\n")
    progress({"step": 1, "steps": 2, "loss": 3.0, "tokens_per_second": 10.0})
    time.sleep(settings.get("seconds", 0))
    if "warns" in settings:
        warnings.warn(settings["warns"], stacklevel=1)
    if "block" in settings:
        os.mkdir(settings["block"])
    if settings.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "raises" in settings:
        raise {"memory": MemoryError(), "diverged": FloatingPointError("loss is nan at step 3"),
               "value": ValueError("bad\nsetting")}[settings["raises"]]  # fmt: skip
    value = float("nan") if settings.get("nan") else settings.get("value", 0.5)
    found = [(None, "compact_exact_match", value, 100, {"length": 64}), (None, "threads", THREADS_AT_IMPORT, 1, {})]
    return store.Measured(
        parameters=1000, state_bytes=64, protocol="trained", provider="chunked",
        measurements=found, predictions=settings.get("predictions", ()),
    )  # fmt: skip


def main(rows_path: str, log: str, count: int, seconds: float, workers: int) -> None:
    cells = [cell(f"model{i}", log=log, seconds=seconds) for i in range(count)]
    summary = schedule.run(cells, measure, identify, Path(rows_path), workers=workers)
    print(summary.measured, summary.failed, summary.skipped)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
