"""The tiles of heat maps: colours, and the numbers on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from results.report.figures import style

SHADES = ["#f4f1ea", "#bcd9cf", "#5fa8a0", "#246b7a", "#123a56"]
SCALE = LinearSegmentedColormap.from_list("share", SHADES).with_extremes(bad="#ffffff")
GAP = 1  # tiles between two maps
FINE = 16  # how much larger numbers are when their curves are made lines
LETTER = 0.078  # inches across a letter of a column's heading

Shares = Sequence[float | None]
Number = tuple[float, float, float | None]  # x, y, share


def draw(panel: Axes, values: np.ndarray, numbers: Sequence[Number], font: float) -> Any:
    """Draw shares as tiles with their numbers; the numbers are the scale, and none is drawn beside them."""
    mesh = panel.imshow(values, cmap=SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    _write(panel, numbers, font)
    return mesh


def _write(panel: Axes, numbers: Sequence[Number], font: float) -> None:
    """Shares in percent on their tiles: each number is one shape, drawn wherever it stands, since texts take longest of all."""
    places: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for x, y, share in numbers:
        look = ("-", style.FLOOR) if share is None else (f"{100 * share:.0f}", _ink(share))
        places.setdefault(look, []).append((x, y))
    drawn = panel.get_figure()
    points = Affine2D().scale(1 / 72) + drawn.dpi_scale_trans
    for (text, colour), found in places.items():
        shape = TextPath((0, 0), text, size=FINE * font).cleaned(curves=False)
        middle = shape.get_extents().get_points().mean(axis=0)
        shape = Affine2D().translate(*-middle).scale(1 / FINE).transform_path(shape)
        many = PathCollection([shape], offsets=found, offset_transform=panel.transData, facecolors=colour, linewidths=0)
        many.set_transform(points)
        many.set_in_layout(False)
        panel.add_collection(many, autolim=False)


def _ink(value: float) -> str:
    return "white" if value > 0.55 else style.INK


def separate(panel: Axes, families: Sequence[str], headings: Sequence[str], room: float) -> None:
    """White lines between families and between what columns share, whose names stand above; `room` is a column's width."""
    for place in range(1, len(families)):
        if families[place] != families[place - 1]:
            panel.axhline(place - 0.5, color="white", linewidth=3)
    begin = 0
    for place in range(1, len(headings) + 1):
        if place == len(headings) or headings[place] != headings[begin]:
            if headings[begin]:
                fits = len(headings[begin]) * LETTER <= room * (place - begin)
                panel.annotate(
                    headings[begin], ((begin + place - 1) / 2, -0.5), xytext=(0, 3), textcoords="offset points",
                    ha="center" if fits else "left", va="bottom", fontsize=8 if fits else 7, fontweight="bold",
                    rotation=0 if fits else 35, rotation_mode="anchor",
                )  # fmt: skip
            if place < len(headings) and headings[begin]:
                panel.axvline(place - 0.5, color="white", linewidth=3)
            begin = place
