"""A figure's legend: every model by name, beside the panels, in columns as high as the figure, which grows with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from results.report.figures import style
from results.report.figures.cast import Cast

LINE, SAMPLE, GAP = 0.165, 0.36, 0.15  # inches: of a line of text, a line's sample, and around both
TALLEST = 5.2  # inches up to which a figure grows before its legend has another column
TOP = 0.42  # room for the figure's title
HEADING = {"weight": "bold", "color": "#555555", "fontsize": 7.5}

LegendEntry = tuple[str, dict[str, Any] | None]  # a name with the look of its line, or a heading


def legend(drawn: Figure, cast: Cast, *, readers: Mapping[str, dict[str, Any]] | None = None) -> None:
    """Name the models by family, and below them `readers` by name and look."""
    entries: list[LegendEntry] = []
    family = None
    for model in cast.models:
        if model.family != family:
            family = model.family
            entries.append((model.group, None))
        entries.append((model.title, cast.line(model)))
    place(drawn, entries + [(name, look) for name, look in (readers or {}).items()])


def place(drawn: Figure, entries: list[LegendEntry]) -> None:
    """Put entries to the right of a figure's panels; the figure grows by what they take."""
    width, height = drawn.get_size_inches()
    most = int((max(height, TALLEST) - TOP - GAP) / LINE)
    columns = _columns(
        entries, -(-len(entries) // max(1, -(-len(entries) // (most - 1)))) + 1
    )  # of much the same height
    measure = drawn.canvas.get_renderer().get_text_width_height_descent
    panel = drawn.add_axes((0, 0, 1, 1), label="legend")
    samples: list[style.Line] = []
    texts, x = [], GAP / 2
    for column in columns:
        widest = 0.0
        for row, (name, look) in enumerate(column):
            y = (row + 0.5) * LINE
            if look is not None:
                samples.append(([x, x + SAMPLE / 2, x + SAMPLE], [y] * 3, {"markevery": [1], **look}))
            left = x + (SAMPLE + 0.08 if look is not None else 0.0)
            text = panel.text(left, y, name, va="center", **({"fontsize": 8} if look is not None else HEADING))
            text.set_parse_math(False)
            texts.append(text)
            widest = max(widest, left - x + measure(name, text.get_fontproperties(), False)[0] / drawn.dpi)
        x += widest + GAP
    style.lines(panel, samples, clip_on=False)
    tall = max(map(len, columns), default=0) * LINE
    whole = (width + x, max(height, tall + TOP + GAP))
    drawn.set_size_inches(whole)
    panel.set_position((width / whole[0], 1 - (TOP + tall) / whole[1], x / whole[0], tall / whole[1]))
    panel.set(xlim=(0, x), ylim=(tall, 0))
    panel.set_axis_off()
    panel.set_in_layout(False)
    drawn.get_layout_engine().set(rect=(0, 0, width / whole[0], 1))


def _columns(entries: list[LegendEntry], most: int) -> list[list[LegendEntry]]:
    """Columns of at most so many lines; none ends with a heading."""
    columns: list[list[LegendEntry]] = [[]]
    for entry, after in zip(entries, [*entries[1:], ("", None)], strict=True):
        full = len(columns[-1]) >= most or (entry[1] is None and after[1] is not None and len(columns[-1]) == most - 1)
        if full:
            columns.append([])
        columns[-1].append(entry)
    return columns
