"""Names at the ends of lines, spread until none stands on another, each tied to its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.transforms import blended_transform_factory, offset_copy

from results.report.figures.words import Word, Words

POINTS, HEIGHT = 7.5, 0.13  # of a name: the size of its letters, and inches from one to the next
BESIDE = 9  # points from the panel to its names


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
