"""The tiles of heat maps: colours, and the numbers on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.path import Path

from results.report.figures import artists, frame, style
from results.report.figures.words import Word, Words, width

SHADES = ["#f4f1ea", "#bcd9cf", "#5fa8a0", "#246b7a", "#123a56"]
SCALE = LinearSegmentedColormap.from_list("share", SHADES)
GAP = 1  # tiles between two maps
SEAM = 0.03  # of a tile, white on each side
STEPS = 100  # shades that are told apart
CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)]) * (1 - 2 * SEAM)
AROUND = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]

Shares = Sequence[float | None]


class Tile(NamedTuple):
    """A tile's middle, its shade from 0 to 1 or none, and what is written on it."""

    x: float
    y: float
    shade: float | None
    text: str


def of_share(x: float, y: float, share: float | None) -> Tile:
    """The tile of a share, in percent."""
    return Tile(x, y, share, "-" if share is None else f"{100 * share:.0f}")


def draw(panel: Axes, drawn: Sequence[Tile], shape: tuple[int, int], font: float) -> None:
    """Draw tiles on a panel of so many down and across; the numbers are the scale, and none is drawn beside them."""
    places: dict[int, list[tuple[float, float]]] = {}
    for tile in drawn:
        if tile.shade is not None:
            places.setdefault(round(STEPS * tile.shade), []).append((tile.x, tile.y))
    outlines = [(CORNERS[None] + np.array(found)[:, None]).reshape(-1, 2) for found in places.values()]
    many = PathCollection(
        [Path(corners, AROUND * (len(corners) // len(AROUND))) for corners in outlines],
        facecolors=[SCALE(shade / STEPS) for shade in places],
        linewidths=0,
        transform=panel.transData,
    )
    many.set_snap(True)
    panel.add_collection(many, autolim=False)
    panel.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    around = frame.of(panel)
    around.grid, around.has_axes = "", False
    texts = Words([Word(one.text, one.x, one.y, font, _ink(one.shade)) for one in drawn], panel.transData)
    texts.set_in_layout(False)
    panel.add_artist(texts)


def _ink(value: float | None) -> str:
    return style.FLOOR if value is None else "white" if value > 0.55 else style.INK


def separate(panel: Axes, families: Sequence[str], headings: Sequence[str], room: float) -> None:
    """White lines between families and between what columns share, whose names stand above; `room` is a column's width."""
    pen = {"color": "white", "linewidth": 3, "zorder": 2}
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    ends = [place for place in range(1, len(families)) if families[place] != families[place - 1]]
    white = [([left, right], [place - 0.5] * 2, pen) for place in ends]
    spans = _spans(headings)
    white += [([end - 0.5] * 2, [bottom, top], pen) for begin, end in spans[:-1] if headings[begin]]
    artists.lines(panel, white)
    named = [(headings[begin], (begin + end - 1) / 2, room * (end - begin)) for begin, end in spans if headings[begin]]
    fit = all(width(text, 8, "bold") <= inches for text, _, inches in named)
    look = {"size": 8, "va": "bottom"} if fit else {"size": 7, "ha": "left", "angle": 35}
    above = [Word(text, x, -0.5, weight="bold", dy=2 + 2 * (not fit), **look) for text, x, _ in named]
    panel.add_artist(Words(above, panel.transData))


def _spans(headings: Sequence[str]) -> list[tuple[int, int]]:
    """The first and the place after the last of columns that follow one another below one heading."""
    begins = [place for place in range(len(headings)) if not place or headings[place] != headings[place - 1]]
    return list(zip(begins, [*begins[1:], len(headings)], strict=True))
