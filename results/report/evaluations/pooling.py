"""Measured rows, indexed once by model, metric and settings, and pooled once into points with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from results.report import statistics
from results.rows import metrics
from results.rows.row import canonical, diverged

Row = dict[str, Any]
Where = Mapping[str, Any]
ASKED = ("question", "variant")  # keys of `where` that say what is asked


@dataclass(frozen=True)
class Point:
    """An aggregated number with its 95 % interval, where one is known, and what it rests on."""

    value: float
    low: float | None
    high: float | None
    count: int
    seeds: int


class RowIndex:
    """The rows of an evaluation by model and metric, with what each mean is to be over; every question is answered once."""

    def __init__(self, rows: Mapping[str, Sequence[Row]]) -> None:
        self._rows = rows
        self._points: dict[tuple[str, str, frozenset], Point | None] = {}
        self._whole: dict[tuple[str, str, frozenset], list[Row]] = {}
        self._parts: dict[tuple[str, frozenset], set[str]] = {}

    @cached_property
    def _measured(self) -> dict[tuple[str | None, str | None], list[Row]]:
        """Measured rows by label and metric, None for all of either."""
        found: dict[tuple[str | None, str | None], list[Row]] = {}
        for label, rows in self._rows.items():
            for row in rows:
                if row["status"] == "ok":
                    for key in ((label, row["metric"]), (label, None), (None, row["metric"]), (None, None)):
                        found.setdefault(key, []).append(row)
        return found

    def measured(self, label: str | None = None, metric: str | None = None) -> list[Row]:
        """The rows with a number, of one model and metric or of all."""
        return list(self._measured.get((label, metric), ()))

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics measured here, in a fixed order: as `where` grows, then by name."""
        found: dict[str, int] = {}
        for row in self.measured():
            found[row["metric"]] = max(found.get(row["metric"], 0), len(row["where"]))
        return sorted(found, key=lambda metric: (found[metric], metric))

    @cached_property
    def wheres(self) -> dict[str, dict[str, Where]]:
        """Of each metric the distinct settings that it was measured under, in order, by their canonical text."""
        found: dict[str, dict[str, Where]] = {}
        for row in self.measured():
            found.setdefault(row["metric"], {})[canonical(row["where"])] = row["where"]
        return {m: dict(sorted(places.items(), key=lambda one: place_of(one[1]))) for m, places in found.items()}

    @cached_property
    def varying(self) -> dict[str, list[str]]:
        """Of each metric the keys of `where` that take more than one value."""
        found = {}
        for metric, wheres in self.wheres.items():
            keys = dict.fromkeys(key for where in wheres.values() for key in where)
            found[metric] = [k for k in keys if len({canonical(where.get(k)) for where in wheres.values()}) > 1]
        return found

    @cached_property
    def _lost(self) -> list[tuple[Where, set[str]]]:
        """The settings of rows without a number that say which part of their cell they are, and which metrics they lack."""
        failed = [row for rows in self._rows.values() for row in rows if row["status"] != "ok" and row["where"]]
        return [(row["where"], diverged(row["reason"])) for row in failed]

    @cached_property
    def _asked(self) -> dict[str, list[tuple[str, frozenset]]]:
        """Of each metric all parts that anybody measured or failed in, as canonical text and as items."""
        found = {}
        for metric, known in self.wheres.items():
            keys = {frozenset(one) for one in known.values()}
            fitting = [one for one, lacked in self._lost if frozenset(one) in keys and (not lacked or metric in lacked)]
            lost = {canonical(one): one for one in fitting}
            found[metric] = [(text, items(one)) for text, one in (known | lost).items()]
        return found

    def asked(self, metric: str, where: Where) -> set[str]:
        """All parts, as canonical text, that a mean under `where` is told to be over: measured, or failed, by anybody."""
        key = metric, items(where)
        if key not in self._parts:
            self._parts[key] = {text for text, one in self._asked.get(metric, ()) if key[1] <= one}
        return self._parts[key]

    @cached_property
    def _by_part(self) -> dict[tuple[str, str], dict[str, list[Row]]]:
        """The measured rows of each model and metric by the text of their settings, texts and seeds ascending."""
        found = {}
        for (label, metric), rows in self._measured.items():
            if label is not None and metric is not None:
                parts = found.setdefault((label, metric), {})
                for text, row in sorted(((canonical(row["where"]), row) for row in rows), key=_text_and_seed):
                    parts.setdefault(text, []).append(row)
        return found

    def matching(self, label: str, metric: str, where: Where) -> Iterator[tuple[str, Row]]:
        """A model's rows that `where` covers, each after the text of its own settings."""
        parts, asked = self._by_part.get((label, metric), {}), self.asked(metric, where)
        return ((text, row) for text, rows in parts.items() if text in asked for row in rows)

    def whole(self, label: str, metric: str, where: Where) -> list[Row]:
        """The rows that match `where`, of the seeds that have every part of it: no mean is taken over less."""
        key = label, metric, items(where)
        if key not in self._whole:
            rows = list(self.matching(label, metric, where))
            if metric not in metrics.ABOUT_TRAINING:
                had: dict[int, set[str]] = {}
                for text, row in rows:
                    had.setdefault(row["seed"], set()).add(text)
                asked = len(self.asked(metric, where))
                rows = [(text, row) for text, row in rows if len(had[row["seed"]]) == asked]
            self._whole[key] = [row for _, row in rows]
        return self._whole[key]

    def point(self, label: str, metric: str, where: Where) -> Point | None:
        """The mean over seeds of what matches `where`, pooled at the first question; None where no seed is whole."""
        key = label, metric, items(where)
        if key not in self._points:
            rows = self.whole(label, metric, where)
            self._points[key] = aggregate(metric, rows) if rows else None
        return self._points[key]


def items(where: Where) -> frozenset:
    """Settings as a set of items, for looking up and for what covers what."""
    try:
        return frozenset(where.items())
    except TypeError:  # a list
        return frozenset((name, value if value.__hash__ else canonical(value)) for name, value in where.items())


def _text_and_seed(pair: tuple[str, Row]) -> tuple[str, int]:
    return pair[0], pair[1]["seed"]


def place_of(where: Where) -> list:
    """What settings are sorted by: what is asked first, then the other keys by name."""
    keys = sorted(where, key=lambda key: (key not in ASKED, key))
    return [(key, metrics.sort_key(where[key])) for key in keys]


def aggregate(metric: str, rows: Sequence[Row]) -> Point:
    """Pool each seed's rows by count, then average the seeds, with the interval that the numbers allow.

    A share's is the wider of Wilson's and that over seeds, and ends at 0 and 1.
    """
    values = list(by_seed(rows).values())
    count = sum(row["count"] for row in rows)
    value, low, high = fmean(values), None, None
    if len(values) > 1:
        value, half = statistics.student(values)
        low, high = value - half, value + half
    if metrics.is_accuracy(metric):
        ends = statistics.wilson(value, count)
        low = ends[0] if low is None else max(0.0, min(low, ends[0]))
        high = ends[1] if high is None else min(1.0, max(high, ends[1]))
    return Point(value, low, high, count, len(values))


def by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Each seed's rows, in the order of the text of their settings, pooled by count; seeds ascending."""
    return {seed: value for seed, (value, _) in counted_by_seed(rows).items()}


def counted_by_seed(rows: Sequence[Row]) -> dict[int, tuple[float, int]]:
    """The same, each with what it counts."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["seed"], []).append(row)
    return {seed: (_pooled(groups[seed]), sum(row["count"] for row in groups[seed])) for seed in sorted(groups)}


def _pooled(rows: list[Row]) -> float:
    weight = sum(row["count"] for row in rows)
    if not weight or len(rows) == 1:
        return fmean(row["value"] for row in rows)
    return sum(row["value"] * row["count"] for row in rows) / weight
