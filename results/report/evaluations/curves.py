"""The training curves of an evaluation's models: the mean over spans of steps and over seeds, from the files of its cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from results.report.curves import TRAINING, path_of, read
from results.report.evaluations.evaluation import Evaluation
from results.report.evaluations.pooling import Point
from results.report.statistics import student

SPANS = 25  # points of a drawn curve at most, each the mean of a span of steps

Curve = list[tuple[int, Point]]  # the last step of each span, and the mean over it and over seeds


def of(evaluation: Evaluation, folder: Path) -> dict[str, Curve]:
    """The curve of each model of an evaluation that has one, by label: the mean over spans of steps and over seeds.

    Raises CurveError for a file that is damaged.
    """
    found = {}
    for model in evaluation.learners:
        cells = {row["seed"]: row["cell"] for row in evaluation.rows[model.label]}
        curves = [read(path_of(folder, cell)) for _, cell in sorted(cells.items())]
        trained = [{p.step: p.loss for p in curve if p.split == TRAINING} for curve in curves]
        if curve := pooled([one for one in trained if one]):
            found[model.label] = curve
    return found


def pooled(seeds: Sequence[Mapping[int, float]]) -> Curve:
    """The mean of several seeds' losses by step, over at most SPANS spans; a seed that ended before others takes no part."""
    last = max((max(one) for one in seeds), default=0)
    whole = [one for one in seeds if max(one) == last]
    count = min(SPANS, last)
    curve = []
    for number in range(count):
        first, end = last * number // count, last * (number + 1) // count
        means = [fmean(known) for one in whole if (known := [one[s] for s in range(first + 1, end + 1) if s in one])]
        if len(means) == len(whole):
            curve.append((end, _point(means)))
    return curve


def _point(means: Sequence[float]) -> Point:
    if len(means) < 2:
        return Point(means[0], None, None, 1, 1)
    middle, half = student(means)
    return Point(middle, middle - half, middle + half, len(means), len(means))


def csv_text(curves: Mapping[str, Curve]) -> str:
    """The drawn curves as a table: model, step, loss, its 95 % interval over seeds, and how many these are."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("model", "step", "loss", "low", "high", "seeds"))
    for label, curve in curves.items():
        for step, point in curve:
            ends = ("" if end is None else f"{end:.6g}" for end in (point.low, point.high))
            table.writerow((label, step, f"{point.value:.6g}", *ends, point.seeds))
    return text.getvalue()
