"""Names at the ends of lines and beside points, none on another, each tied to what it names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox, IdentityTransform, blended_transform_factory, offset_copy

from results.report.figures.words import DESCENT, Word, Words, width

POINTS, HEIGHT = 7.5, 0.13  # of a name: the size of its letters, and inches from one to the next
BESIDE = 9  # points from the panel to its names
SMALL, POINT, CLEAR = (
    7.0,
    5.0,
    2.0,
)  # points: letters of a name beside a point, half of what the point takes, and what stays free
DISTANCES, DIRECTIONS = (6, 10, 14, 20, 28, 38, 50, 64, 80), 16  # points from a point to its name, and ways to go


class Name(NamedTuple):
    """What a line is called at its end."""

    text: str
    x: float
    y: float
    colour: str


def fit(names: Sequence[Name], height: float) -> bool:
    """Whether so many names find room beside a panel of a height in inches."""
    return 0 < len(names) * HEIGHT <= height


def at_ends(panel: Axes, names: Sequence[Name]) -> None:
    """Write names to the right of a panel, each at the height of its line's end or as near as the others leave room."""
    beside = offset_copy(
        blended_transform_factory(panel.transAxes, panel.transData), panel.figure, BESIDE, 0, units="points"
    )
    look = {"size": POINTS, "ha": "left"}
    texts = Words([Word(name.text, 1.0, name.y, colour=name.colour, **look) for name in names], beside)
    panel.add_artist(texts)
    ties = LineCollection([], colors=[name.colour for name in names], linewidths=0.5, alpha=0.6, zorder=1.1)
    ties.set_clip_on(False)
    panel.add_collection(ties, autolim=False)
    ties.set_in_layout(False)

    def spread() -> None:
        dpi, box = panel.figure.dpi, panel.get_window_extent()
        ends = panel.transData.transform([(name.x, name.y) for name in names])
        heights = apart([y for _, y in ends], HEIGHT * dpi, box.y0, box.y1)
        edge = box.x1 + (BESIDE - 1.5) * dpi / 72
        back = panel.transData.inverted().transform
        texts.words = [
            word._replace(y=back((edge, height))[1]) for word, height in zip(texts.words, heights, strict=True)
        ]
        ties.set_segments([back([end, (edge, height)]) for end, height in zip(ends, heights, strict=True)])

    panel.figure.get_layout_engine().after.append(spread)


def beside(
    panel: Axes,
    names: Sequence[Name],
    others: Sequence[tuple[float, float]],
    way: tuple[int, int],
    levels: Sequence[float] = (),
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Write names beside their points, first towards `way`; they cover none of them.

    Of the `others`, of lines across the panel at the heights `levels`, and of upright `bars` (x, from, to), they cover as few
    as may be.
    """
    texts = Words([Word(name.text, 0, 0, SMALL, name.colour, ha="left", va="baseline") for name in names])
    texts.set_in_layout(False)
    panel.add_artist(texts)
    ties = LineCollection([], colors=[name.colour for name in names], linewidths=0.5, alpha=0.7, zorder=1.1)
    ties.set_transform(IdentityTransform())
    ties.set_in_layout(False)
    panel.add_collection(ties, autolim=False)

    def place() -> None:
        unit, box = panel.figure.dpi / 72, panel.get_window_extent()
        points = panel.transData.transform([(name.x, name.y) for name in names])
        rest = panel.transData.transform(np.reshape(others, (-1, 2))) if len(others) else np.zeros((0, 2))
        lines_at = (
            panel.transData.transform([(names[0].x, level) for level in levels])[:, 1] if levels and names else []
        )
        ends = panel.transData.transform([(x, y) for x, low, high in bars for y in (low, high)] or [(0, 0)])
        upright = [Bbox([low, high]) for low, high in zip(ends[::2], ends[1::2], strict=False)]
        taken = [
            Bbox.from_bounds(x - POINT * unit, y - POINT * unit, 2 * POINT * unit, 2 * POINT * unit) for x, y in points
        ]
        words, lines = [], []
        for point, word in zip(points, texts.words, strict=True):
            size = width(word.text, word.size) * panel.figure.dpi, SMALL * unit
            found = min(
                _around(point, size, unit, way), key=lambda one: _cost(one, taken, rest, lines_at, upright, box)
            )
            taken.append(found[0].padded(CLEAR * unit, 0))
            words.append(word._replace(x=found[0].x0, y=found[0].y0 + DESCENT * size[1]))
            end = np.clip(point, found[0].min, found[0].max)
            lines.append([point, end])
        texts.words = words
        ties.set_segments(lines)

    panel.figure.get_layout_engine().after.append(place)


def _around(
    point: np.ndarray, size: tuple[float, float], unit: float, way: tuple[int, int]
) -> list[tuple[Bbox, float]]:
    """Boxes of a size around a point, and how far each is from where a name stands best, in points."""
    first, found = math.atan2(way[1], way[0]), []
    for far in DISTANCES:
        for step in range(DIRECTIONS):
            angle = first + 2 * math.pi * step / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            middle = point + far * unit * np.array([across, up]) + np.array([across * size[0], up * size[1]]) / 2
            box = Bbox.from_bounds(*(middle - np.array(size) / 2), *size)
            found.append((box, far + min(step, DIRECTIONS - step) / 2))
    return found


def _cost(
    found: tuple[Bbox, float],
    taken: Sequence[Bbox],
    others: np.ndarray,
    levels: Sequence[float],
    bars: Sequence[Bbox],
    room: Bbox,
) -> float:
    """How bad a place is: outside the panel or on a name worst of all, then on points and lines, then far."""
    box, far = found
    outside = box.x0 < room.x0 or box.x1 > room.x1 or box.y0 < room.y0 or box.y1 > room.y1
    on = sum(box.overlaps(other) for other in taken)
    covered = ((others > box.min) & (others < box.max)).all(axis=1).sum()
    struck = sum(box.y0 < level < box.y1 for level in levels) + sum(box.overlaps(bar) for bar in bars)
    return 10_000 * (outside + on) + 6 * float(covered + struck) + far


def apart(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Heights in the order of those wanted, at least a step apart, between low and high, and as near as that allows."""
    groups: list[list[int]] = []  # neighbours that touch stand together around their middle
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    middles: list[float] = []
    for place in order:
        groups.append([place])
        middles.append(_within(wanted[place], 1, step, low, high))
        while len(groups) > 1 and middles[-1] - middles[-2] < step * (len(groups[-1]) + len(groups[-2])) / 2:
            joined = [*groups.pop(-2), *groups.pop()]
            del middles[-2:]
            groups.append(joined)
            middles.append(_within(sum(wanted[p] for p in joined) / len(joined), len(joined), step, low, high))
    found = [0.0] * len(wanted)
    for group, middle in zip(groups, middles, strict=True):
        for rank, place in enumerate(group):
            found[place] = middle + step * (rank - (len(group) - 1) / 2)
    return found


def _within(middle: float, count: int, step: float, low: float, high: float) -> float:
    half = step * count / 2
    return min(max(middle, low + half), max(high - half, low + half))
