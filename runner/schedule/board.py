"""Losses written for TensorBoard while models train: `bench.py run NAME --log tensorboard`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from results.cell import Cell
from results.plans.learning_rates import METRIC
from runner.schedule.schedule import RunEvent

SCALARS = {"loss": "training/loss", "tokens_per_second": "training/tokens_per_second"}


class Board:
    """A watcher of `runner.schedule.schedule.run` that writes a folder of events for each cell that trains, below `folder`.

    A cell tells its loss about twice a second, wherever it is measured; every step is in its training curve. Raises
    ImportError, in one sentence, where the package is not installed. Use as a context manager.
    """

    def __init__(self, folder: Path, writer: Callable[[str], Any] | None = None) -> None:
        self.folder, self.make = folder, writer or _writer()
        self.writers: dict[str, Any] = {}
        self.last: dict[str, int] = {}

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for key in list(self.writers):
            self._close(key)

    def tell(self, event: RunEvent) -> None:
        """Take one event of the run."""
        if event.kind == "progress" and {"step", "loss"} <= event.progress.keys():
            self._write(event)
        elif event.kind in ("finished", "failed") and event.key in self.writers:
            for row in event.rows:
                if row["metric"] == METRIC and row["status"] == "ok":
                    self.writers[event.key].add_scalar("validation/loss", row["value"], self.last[event.key])
            self._close(event.key)

    def _write(self, event: RunEvent) -> None:
        if event.key not in self.writers:
            self.writers[event.key] = self.make(str(self.folder / folder_of(event.cell, event.key)))
        step = self.last[event.key] = event.progress["step"]
        for name, scalar in SCALARS.items():
            if name in event.progress:
                self.writers[event.key].add_scalar(scalar, event.progress[name], step)
        self.writers[event.key].flush()

    def _close(self, key: str) -> None:
        self.writers.pop(key).close()


def folder_of(cell: Cell, key: str) -> str:
    """What TensorBoard calls a cell: model, task, seed, rate, and the key's beginning, which no other cell has."""
    name = "-".join([cell.variant or cell.model, cell.task, f"seed{cell.seed}", f"lr{cell.lr:g}", key[:8]])
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _writer() -> Callable[[str], Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "--log tensorboard needs a package that is not installed: pip install tensorboard, or leave --log out."
        ) from None
    return SummaryWriter
