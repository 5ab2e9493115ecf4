"""The training curve of a cell, written beside the rows while it grows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from results.plans.learning_rates import METRIC
from results.report.curves import TRAINING, VALIDATION, CurvePoint, write
from schema import whole_file

SECONDS = 5.0  # from one writing to the next, while a training goes on
EVERY = "losses"  # what a cell reports for its curve alone: the list of all steps' losses
SHARE = 50  # a writing may take a fiftieth of the time


class Recorder:
    """The curve of the training that goes on in this process, kept at `path`; a cell that trains nothing leaves no file.

    Every step is in it where snapshots are kept; elsewhere the steps that `news` tells, about two a second. What the
    disk does not take is told in one warning and costs no cell.
    """

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        self.path, self.seconds = path, seconds
        self.every: Sequence[float] = ()
        self.told: dict[int, float] = {}
        self.judged: list[CurvePoint] = []
        self.next, self.is_warned = time.monotonic() + seconds, False

    def news(self, progress: dict[str, Any]) -> None:
        """Take what a training tells of itself: the loss of one step, or (EVERY) the losses of all steps so far."""
        if EVERY in progress:
            self.every = progress[EVERY]
        elif "loss" in progress and "step" in progress:
            self.told[progress["step"]] = progress["loss"]
        else:
            return
        if time.monotonic() >= self.next:
            self.write()

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take a trial's loss on the validation split from its rows: that of the last step."""
        last = max([len(self.every), *self.told])
        losses = [row["value"] for row in rows if row["metric"] == METRIC and row["status"] == "ok"]
        self.judged = [CurvePoint(last, VALIDATION, loss) for loss in losses if last]

    def write(self) -> None:
        """Write what is known so far."""
        points = [CurvePoint(step, TRAINING, loss) for step, loss in enumerate(self.every, 1)]
        points += [CurvePoint(step, TRAINING, self.told[step]) for step in sorted(self.told) if step > len(points)]
        begun = time.monotonic()
        try:
            if points:
                write(self.path, [*points, *self.judged])
            else:
                self.path.unlink(missing_ok=True)  # of an earlier attempt
        except OSError as error:
            if not self.is_warned:
                warnings.warn(f"The training curve could not be kept: {error}. The cell goes on.", stacklevel=2)
            self.is_warned = True
        now = time.monotonic()
        self.next = now + max(self.seconds, SHARE * (now - begun))


def keep(path: Path, curve: bytes | None) -> None:
    """Keep a curve that another machine recorded, or remove that of an earlier attempt where there is none.

    What the disk does not take is told in a warning and costs no cell.
    """
    try:
        if curve is None:
            path.unlink(missing_ok=True)
        else:
            whole_file.write(path, curve)
    except OSError as error:
        warnings.warn(f"The training curve could not be kept: {error}. The cell goes on.", stacklevel=2)


@contextmanager
def recorded(path: Path) -> Iterator[Recorder]:
    """A recorder of what a cell reports, written for the last time however this ends."""
    recorder = Recorder(path)
    try:
        yield recorder
    finally:
        recorder.write()
