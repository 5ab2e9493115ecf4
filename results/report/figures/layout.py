"""Where the parts of a figure stand: heading above, panels in a grid, the legend below; nothing overlaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine
from matplotlib.text import Text

from results.report.figures import frame
from results.report.figures.words import Words

EDGE, GAP = 0.06, 0.14  # inches: around the figure, and between two panels
POINTS = 72  # an inch
SPACING = 1.25  # of a heading's lines

Margins = tuple[float, float, float, float]  # left, right, below, above: inches that a panel's words take


class Layout(LayoutEngine):
    """Measures the words around each panel once and gives the panels what they leave."""

    _adjust_compatible, _colorbar_gridspec = True, False

    def __init__(self) -> None:
        super().__init__()
        self.heading: list[Text] = []  # title and note, below one another
        self.legend: Axes | None = None
        self.legend_height = 0.0  # inches
        self.after: list[Callable[[], None]] = []  # what stands where the panels ended up

    @property
    def above(self) -> float:
        """The inches that the heading takes."""
        return EDGE + sum(_height(text) for text in self.heading) + (EDGE if self.heading else 0.0)

    def execute(self, fig: Figure) -> None:
        """Place everything in a figure."""
        wide, high = fig.get_size_inches()
        y = high - EDGE
        for text in self.heading:
            text.set_position((EDGE / wide, y / high))
            y -= _height(text)
        if self.legend is not None:
            self.legend.set_position((0, 0, 1, self.legend_height / high))
        panels = [panel for panel in fig.axes if panel.get_subplotspec() is not None]
        if panels:
            room = EDGE, self.legend_height + EDGE, wide - 2 * EDGE, high - self.above - self.legend_height - EDGE
            _place(panels, {}, room)
            _place(panels, {panel: _margins(panel, fig) for panel in panels}, room)
        for step in self.after:
            step()


def _height(text: Text) -> float:
    return SPACING * text.get_fontsize() / POINTS * len(text.get_text().splitlines())


def _margins(panel: Axes, fig: Figure) -> Margins:
    inner = panel.get_window_extent()
    written = [artist for artist in panel.artists if isinstance(artist, Words) and artist.get_in_layout()]
    boxes = [*frame.of(panel).boxes(), *(line.box for words in written for line in words.placed())]
    ends = np.array([box.extents for box in boxes])
    low, high = ends[:, :2].min(axis=0), ends[:, 2:].max(axis=0)
    sides = inner.x0 - low[0], high[0] - inner.x1, inner.y0 - low[1], high[1] - inner.y1
    left, right, below, above = (max(0.0, float(side)) / fig.dpi for side in sides)
    return left, right, below, above


def _place(panels: Sequence[Axes], margins: dict[Axes, Margins], room: tuple[float, float, float, float]) -> None:
    """Give every panel its place in the grid: equal ones are equally large, whatever the words around them."""
    fig, grid = panels[0].get_figure(), panels[0].get_subplotspec().get_gridspec()
    wide, high = fig.get_size_inches()
    x0, y0, room_wide, room_high = room
    columns, rows = range(grid.ncols), range(grid.nrows)
    places = {panel: (panel.get_subplotspec().colspan.start, panel.get_subplotspec().rowspan.start) for panel in panels}

    def widest(side: int, axis: int, place: int) -> float:
        """Of a column's or row's panels, the most that their words take on a side."""
        found = [margins[panel][side] for panel in panels if panel in margins and places[panel][axis] == place]
        return max(found, default=0.0)

    lefts, rights = ([widest(side, 0, column) for column in columns] for side in (0, 1))
    belows, aboves = ([widest(side, 1, row) for row in rows] for side in (2, 3))
    across = max(0.3, room_wide - sum(lefts) - sum(rights) - GAP * (grid.ncols - 1))
    down = max(0.3, room_high - sum(belows) - sum(aboves) - GAP * (grid.nrows - 1))
    widths = _shares(across, grid.get_width_ratios())
    heights = _shares(down, grid.get_height_ratios())
    lefts_at = [
        x0 + before + lefts[column] + GAP * column
        for column, before in enumerate(_sums([a + b + c for a, b, c in zip(lefts, widths, rights, strict=True)]))
    ]
    tops_at = [
        y0 + room_high - before - aboves[row] - GAP * row
        for row, before in enumerate(_sums([a + b + c for a, b, c in zip(aboves, heights, belows, strict=True)]))
    ]
    for panel, (column, row) in places.items():
        bottom = tops_at[row] - heights[row]
        panel.set_position((lefts_at[column] / wide, bottom / high, widths[column] / wide, heights[row] / high))


def _shares(whole: float, ratios: Sequence[float]) -> list[float]:
    return [whole * ratio / sum(ratios) for ratio in ratios]


def _sums(values: Sequence[float]) -> list[float]:
    """What stands before each value: 0, the first, the first two together."""
    return [0.0, *itertools.accumulate(values)][: len(values)]
