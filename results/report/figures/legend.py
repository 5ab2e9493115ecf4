"""A figure's legend: who is drawn, by name, below the panels in columns of one height; the figure grows by it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from matplotlib.figure import Figure

from results.report.figures import artists, canvas
from results.report.figures.cast import Cast

LINE, SAMPLE, GAP = 0.15, 0.34, 0.16  # inches: of a line of text, a line's sample, and between columns
NAME = {"fontsize": 7.5}
HEADING = {"weight": "bold", "color": "#555555", "fontsize": 7.5}

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
    measure, dpi = drawn.canvas.get_renderer().get_text_width_height_descent, drawn.dpi
    panel = drawn.add_axes((0, 0, 1, 1), label="legend")
    lefts = [SAMPLE + 0.06 if look is not None else 0.0 for _, look in entries]
    texts = []
    for (name, look), left in zip(entries, lefts, strict=True):
        text = panel.text(left, 0, name, va="center", **(NAME if look is not None else HEADING))
        text.set_parse_math(False)
        texts.append(text)
    widths = [
        left + measure(name, text.get_fontproperties(), False)[0] / dpi
        for (name, _), left, text in zip(entries, lefts, texts, strict=True)
    ]
    wide = canvas.width()
    most = max(1, int((wide - GAP) / (max(widths) + GAP)))
    columns = _columns([look is None for _, look in entries], -(-len(entries) // most))
    while len(columns) > most:  # headings that moved on took another column
        columns = _columns([look is None for _, look in entries], max(map(len, columns)) + 1)
    samples: list[artists.Line] = []
    across, tall = (wide - GAP) / max(most, len(columns)), max(map(len, columns))
    for column, rows in enumerate(columns):
        for row, number in enumerate(rows):
            x, y, look = GAP + column * across, (row + 0.5) * LINE, entries[number][1]
            if look is not None:
                samples.append(([x, x + SAMPLE / 2, x + SAMPLE], [y] * 3, {"markevery": [1], **look}))
            texts[number].set_position((x + lefts[number], y))
    artists.lines(panel, samples, clip_on=False)
    height = tall * LINE + GAP
    panel.set(xlim=(0, wide), ylim=(tall * LINE + GAP / 2, -GAP / 2))
    panel.set_axis_off()
    panel.set_in_layout(False)
    drawn.set_figheight(drawn.get_figheight() + height)
    layout = drawn.get_layout_engine()
    layout.legend, layout.legend_height = panel, height


def _columns(headings: list[bool], most: int) -> list[list[int]]:
    """The numbers of entries in columns of at most so many lines; none ends with a heading."""
    columns: list[list[int]] = [[]]
    for number, is_heading in enumerate(headings):
        before_last = is_heading and number + 1 < len(headings) and not headings[number + 1]
        if columns[-1] and (len(columns[-1]) >= most or (before_last and len(columns[-1]) == most - 1)):
            columns.append([])
        columns[-1].append(number)
    return columns
