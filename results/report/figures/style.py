"""How a model looks in every figure, and the settings under which figures are made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.colors import to_rgb

from results.report.evaluations import Model
from results.report.families import YOURS
from results.report.figures.formats import fonts

CHROMA, SHADES = 0.135, (0.42, 0.60, 0.78, 0.51, 0.69)  # OKLCH; five shades and eight dashes: one number tells of both
READ = 0.56  # the lightest shade that a name is written in
LINES = (
    "-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1, 1, 1, 1, 1)), (0, (3, 3)),
)  # fmt: skip
THICK = 2.8  # points across the line of a user's own model
FLOOR, FAINT = "#6b6b6b", "#b9b9b9"
INK, GRID = "#222222", "#e3e3e3"
WIDTHS = {"page": 6.9, "column": 3.4}  # inches: of a page's text, and of one of its two columns
FAINT_SIZE = 3.6  # points across the marker of a grey line
SIZE = 5.0  # points across a marker
HEIGHT = {"linewidth": 1.5, "linestyle": "-", "zorder": 2}  # of a line that says nothing else

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "titanomachy",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "text.hinting": "no_hinting",  # at 160 dots an inch nobody sees it, and it takes a third of a text's time
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # no labels stand above a panel: none need be asked for their size
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "lines.markersize": SIZE,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def colour(model: Model) -> str:
    """A model's colour: its family's hue, in the shade that is its own."""
    return _colour(SHADES[model.look.number % len(SHADES)], model.look.hue)


def text_colour(model: Model) -> str:
    """The colour of a model's name: its own, as dark as reading takes."""
    return _colour(min(SHADES[model.look.number % len(SHADES)], READ), model.look.hue)


def ink(model: Model) -> str:
    """The colour of text that is read on the model's colour."""
    red, green, blue = to_rgb(colour(model))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.6 else INK


def line(model: Model, is_bright: bool = True) -> dict[str, Any]:
    """Keyword arguments of `Axes.plot` for a model's line; thin and grey, with its own marker and dash, unless it is bright."""
    shape = {"marker": model.look.marker, "linestyle": LINES[model.look.number % len(LINES)]}
    if is_bright:
        bright = shape | {"color": colour(model), "markeredgecolor": "white", "markeredgewidth": 0.5}
        return bright | ({"linewidth": THICK, "zorder": 4} if model.family == YOURS else {})
    return shape | {"color": FAINT, "markeredgewidth": 0.0, "markersize": FAINT_SIZE, "linewidth": 0.8, "zorder": 1.7}


def point(model: Model, is_bright: bool = True) -> dict[str, Any]:
    """Keyword arguments of `Axes.scatter` for a model's point; small and grey unless it is bright."""
    shape = {"marker": model.look.marker, "linewidths": 0.6}
    if is_bright:
        return shape | {"color": colour(model), "edgecolors": "white", "s": 70, "zorder": 3}
    return shape | {"color": FAINT, "edgecolors": "white", "s": 30, "zorder": 1.7}


def settings(texts: Iterable[str] | None = None, width: str = "page") -> Any:
    """The context in which figures are made and saved, whatever the user's own matplotlib settings are.

    `texts` are all that come from rows and stand in the figures, where they are known; `width` is one of WIDTHS.
    """
    ours = {**SETTINGS, "figure.figsize": (WIDTHS[width], 4.0), "font.family": fonts.families(texts)}
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **ours})


def _colour(lightness: float, degrees: float) -> str:
    """OKLCH to sRGB (B. Ottosson, 2020), the chroma lowered until the colour can be shown."""
    chroma = CHROMA
    while True:
        a, b = chroma * math.cos(math.radians(degrees)), chroma * math.sin(math.radians(degrees))
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        )
        if all(-1e-6 <= part <= 1 + 1e-6 for part in linear) or chroma <= 0:
            break
        chroma -= 0.005
    channels = [12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055 for x in (max(0.0, p) for p in linear)]
    return "#" + "".join(f"{round(255 * min(1.0, x)):02x}" for x in channels)
