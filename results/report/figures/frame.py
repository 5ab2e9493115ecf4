"""What stands around a panel's data: grid, axes, ticks' labels and title, read from matplotlib's own axes.

Matplotlib makes, measures and draws a dozen objects for every tick, and a report has thousands of ticks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.path import Path
from matplotlib.ticker import ScalarFormatter
from matplotlib.transforms import Bbox, IdentityTransform

from results.report.figures.style import GRID, INK
from results.report.figures.words import Word, Words

TICK, LABEL, TITLE = 7.5, 8.0, 8.5  # points of letters
NEAR, APART = 3.5, 4.0  # points from an axis to its ticks' labels, and from these to the axis' label
AXIS, TICK_INK = "#999999", "#555555"
LINE = 0.8  # points across grid and axes
TURNED = 45


class Frame(Artist):
    """The frame of a panel, whose axes keep their scales, ticks and labels but are drawn here."""

    def __init__(self, panel: Axes) -> None:
        super().__init__()
        self.panel = panel
        self.turn = 0  # degrees of the labels below
        self.shows_left = self.shows_below = True  # the ticks' labels
        self.grid, self.has_axes = "xy", True
        self.title_size = TITLE
        self.left_looks: Sequence[Mapping[str, Any]] = ()  # of each label on the left, from the first: colour, weight
        self.set_zorder(0.5)
        self.set_in_layout(False)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_visible(False)
            axis.set_major_formatter(_plain())
        for one in (*panel.spines.values(), panel.title, panel._left_title, panel._right_title):
            one.set_visible(False)
        panel.add_artist(self)

    def words(self) -> list[Word]:
        """Every text of the frame, in pixels."""
        box = self.panel.get_window_extent()
        below, left = self._below(box), self._left(box)
        found = [*below, *left]
        if text := self.panel.get_xlabel():
            low = min([box.y0, *(line.box.y0 for line in self._placed(below))])
            found.append(Word(text, (box.x0 + box.x1) / 2, low, LABEL, va="top", dy=-APART))
        if text := self.panel.get_ylabel():
            edge = min([box.x0, *(line.box.x0 for line in self._placed(left))])
            found.append(Word(text, edge, (box.y0 + box.y1) / 2, LABEL, va="bottom", dx=-APART, angle=90))
        if text := self.panel.get_title(loc="left"):
            found.append(Word(text, box.x0, box.y1, self.title_size, INK, "bold", "left", "bottom", dy=APART))
        return found

    def boxes(self) -> list[Bbox]:
        """The boxes of its texts, and of the panel itself."""
        return [self.panel.get_window_extent(), *(line.box for line in self._placed(self.words()))]

    def get_window_extent(self, renderer: Any = None) -> Bbox:
        """The box around the panel and all that is written around it."""
        return Bbox.union(self.boxes())

    def draw(self, renderer: Any) -> None:
        """Draw grid and axes, and write the words."""
        box = self.panel.get_window_extent()
        xs, ys = ticks(self.panel.xaxis)[0], ticks(self.panel.yaxis)[0]
        lines = [((x, box.y0), (x, box.y1)) for x in self._pixels(xs, 0) if "x" in self.grid]
        lines += [((box.x0, y), (box.x1, y)) for y in self._pixels(ys, 1) if "y" in self.grid]
        _strokes(renderer, lines, GRID)
        if self.has_axes:
            corner = box.x0, box.y0
            _strokes(renderer, [(corner, (box.x1, box.y0)), (corner, (box.x0, box.y1))], AXIS)
        self._artist(self.words()).draw(renderer)

    def _below(self, box: Bbox) -> list[Word]:
        if not self.shows_below:
            return []
        places, texts = ticks(self.panel.xaxis)
        look = {"ha": "right", "va": "center"} if self.turn else {"va": "top"}
        return [
            Word(text, x, box.y0, TICK, TICK_INK, dy=-NEAR - 2 * bool(self.turn), angle=self.turn, **look)
            for x, text in zip(self._pixels(places, 0), texts, strict=True)
        ]

    def _left(self, box: Bbox) -> list[Word]:
        if not self.shows_left:
            return []
        places, texts = ticks(self.panel.yaxis)
        looks = self.left_looks or [{"colour": TICK_INK}] * len(texts)
        return [
            Word(text, box.x0, y, TICK, ha="right", dx=-NEAR, **look)
            for y, text, look in zip(self._pixels(places, 1), texts, looks, strict=True)
        ]

    def _pixels(self, places: Sequence[float], axis: int) -> list[float]:
        points = np.zeros((len(places), 2)) + [self.panel.get_xlim()[0], self.panel.get_ylim()[0]]
        points[:, axis] = places
        return self.panel.transData.transform(points)[:, axis].tolist() if len(places) else []

    def _artist(self, words: Sequence[Word]) -> Words:
        made = Words(words, IdentityTransform())
        made.set_figure(self.panel.get_figure())
        return made

    def _placed(self, words: Sequence[Word]) -> list[Any]:
        return self._artist(words).placed()


def of(panel: Axes) -> Frame:
    """The frame of a panel that was made with one."""
    return next(artist for artist in panel.artists if isinstance(artist, Frame))


def ticks(axis: Axis) -> tuple[list[float], list[str]]:
    """The places of an axis' ticks that are in view, and what is written at them."""
    low, high = sorted(axis.get_view_interval())
    places, edge = axis.get_majorticklocs(), 1e-9 * (high - low)
    texts = axis.get_major_formatter().format_ticks(places)
    shown = [(float(x), text) for x, text in zip(places, texts, strict=True) if low - edge <= x <= high + edge]
    return [x for x, _ in shown], [text for _, text in shown]


def _plain() -> ScalarFormatter:
    made = ScalarFormatter(useOffset=False)
    made.set_scientific(False)
    return made


def _strokes(renderer: Any, lines: Sequence[Any], colour: str) -> None:
    if not lines:
        return
    pen = renderer.new_gc()
    pen.set_foreground(colour)
    pen.set_linewidth(LINE)
    path = Path(np.reshape(lines, (-1, 2)), [Path.MOVETO, Path.LINETO] * len(lines))
    renderer.draw_path(pen, path, IdentityTransform())
