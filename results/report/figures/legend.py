"""A figure's legend: who is drawn, by name, below the panels in columns of one height; the figure grows by it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

from matplotlib.figure import Figure

from results.report.figures import artists, canvas, words
from results.report.figures.cast import Cast

LINE, SAMPLE, GAP = 0.15, 0.48, 0.16  # inches: of a line of text, a line's sample, and between columns at least
MOST = 0.4  # inches more between columns
POINTS = 7.5
HEADING = {"weight": "bold", "colour": "#555555"}

LegendEntry = tuple[str, dict[str, Any] | None]  # a name with the look of its line, or a heading


def legend(
    drawn: Figure, cast: Cast, *, readers: Mapping[str, dict[str, Any]] | None = None, named: Collection[str] = ()
) -> None:
    """Name the models by family, but for those `named` already, and below them `readers` by name and look."""
    entries: list[LegendEntry] = []
    family = None
    for model in cast.models:
        if model.label in named:
            continue
        if model.family != family:
            family = model.family
            entries.append((model.group, None))
        entries.append((model.title, cast.line(model)))
    place(drawn, entries + [(name, look) for name, look in (readers or {}).items()])


def place(drawn: Figure, entries: list[LegendEntry]) -> None:
    """Put entries below a figure's panels, in as many columns as its width holds."""
    if not entries:
        return
    panel = drawn.add_axes((0, 0, 1, 1), label="legend")
    panel.set_axis_off()
    lefts = [SAMPLE + 0.06 if look is not None else 0.0 for _, look in entries]
    widths = [
        left + words.width(name, POINTS, "normal" if look is not None else "bold")
        for (name, look), left in zip(entries, lefts, strict=True)
    ]
    wide = canvas.width()
    columns, across = _fitting([look is None for _, look in entries], widths, wide)
    starts = list(itertools.accumulate((width + GAP for width in across), initial=GAP))
    spare = min(MOST, max(0.0, wide - starts[-1]) / len(columns))
    tall = max(map(len, columns))
    samples: list[artists.Line] = []
    names: list[words.Word] = []
    for column, rows in enumerate(columns):
        for row, number in enumerate(rows):
            x, y, look = starts[column] + column * spare, (row + 0.5) * LINE, entries[number][1]
            if look is not None:
                samples.append(([x, x + SAMPLE / 2, x + SAMPLE], [y] * 3, {"markevery": [1], **look}))
            shape = {} if look is not None else HEADING
            names.append(words.Word(entries[number][0], x + lefts[number], y, POINTS, ha="left", **shape))
    artists.lines(panel, samples, clip_on=False)
    height = tall * LINE + GAP
    panel.set(xlim=(0, wide), ylim=(tall * LINE + GAP / 2, -GAP / 2))
    panel.add_artist(words.Words(names, panel.transData))
    drawn.set_figheight(drawn.get_figheight() + height)
    layout = drawn.get_layout_engine()
    layout.legend, layout.legend_height = panel, height


def _fitting(headings: list[bool], widths: list[float], wide: float) -> tuple[list[list[int]], list[float]]:
    """The entries in as many columns as stand side by side, each as wide as its own, and how wide each is."""
    for tall in range(1, len(headings) + 1):
        columns = _columns(headings, tall)
        across = [max(widths[number] for number in rows) for rows in columns]
        if sum(across) + GAP * (len(columns) + 1) <= wide:
            break
    return columns, across


def _columns(headings: list[bool], most: int) -> list[list[int]]:
    """The numbers of entries in columns of at most so many lines; none ends with a heading."""
    columns: list[list[int]] = [[]]
    for number, is_heading in enumerate(headings):
        before_last = is_heading and number + 1 < len(headings) and not headings[number + 1]
        if columns[-1] and (len(columns[-1]) >= most or (before_last and len(columns[-1]) == most - 1)):
            columns.append([])
        columns[-1].append(number)
    return columns
