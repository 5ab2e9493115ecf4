"""Training curves as files: the loss of every step of a cell's training, one CSV a cell, beside the rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from schema import whole_file

FOLDER, ENDING = "curves", ".csv"
HEAD = ("step", "split", "loss")
TRAINING, VALIDATION = "training", "validation"


class CurveError(ValueError):
    """A file of a training curve that cannot be read, in one sentence."""


class CurvePoint(NamedTuple):
    """The loss at a step, the first being 1, in nats per asked token: of its batch, or of the validation split after it."""

    step: int
    split: str
    loss: float


def path_of(folder: Path, cell: str) -> Path:
    """Where the curve of a cell lies, by the cell's key."""
    return Path(folder) / f"{cell}{ENDING}"


def write(path: Path, points: Iterable[CurvePoint]) -> None:
    """Write a cell's curve, whole or not at all, in the place of an earlier one. Raises OSError."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    table.writerows(points)
    whole_file.write(path, text.getvalue().encode())


def read(path: Path) -> list[CurvePoint]:
    """The points of a curve, none where there is no file. Raises CurveError for one that is damaged."""
    if not path.exists():
        return []
    try:
        head, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True)
        points = [CurvePoint(int(step), split, float(loss)) for step, split, loss in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise CurveError(f"{path} is no training curve ({error}); delete it, the rows stand without it.") from None
    sound = all(p.step > 0 and p.split in (TRAINING, VALIDATION) and math.isfinite(p.loss) for p in points)
    if tuple(head) != HEAD or not sound:
        raise CurveError(f"{path} is no training curve; delete it, the rows stand without it.")
    return points
