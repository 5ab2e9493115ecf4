"""How a model looks in every figure, and output that is equal byte for byte."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import IdentityTransform

from results.report.evaluations import Model
from results.report.figures import fonts

CHROMA, SHADES = 0.135, (0.42, 0.60, 0.78, 0.51, 0.69)  # OKLCH; five shades and eight dashes: one number tells of both
LINES = (
    "-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1, 1, 1, 1, 1)), (0, (3, 3)),
)  # fmt: skip
FLOOR, FAINT = "#6b6b6b", "#b9b9b9"
INK, GRID = "#222222", "#e3e3e3"
DOTS = 160  # an inch
PEN = ("color", "linestyle", "linewidth", "zorder")  # what a line without markers is told
FAINT_SIZE = 3.2  # points across the marker of a grey line
FAINT_POINT: dict[str, Any] = {
    "color": FAINT,
    "edgecolors": FAINT,
    "linewidths": 0.0,
    "s": FAINT_SIZE**2,
    "zorder": 1.7,
}

METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "titanomachy",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "text.hinting": "no_hinting",  # at DOTS an inch nobody sees it, and it takes a third of a text's time
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # no labels stand above a panel: none need be asked for their size
    "axes.labelsize": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def colour(model: Model) -> str:
    """A model's colour: its family's hue, in the shade that is its own."""
    return _colour(SHADES[model.look.number % len(SHADES)], model.look.hue)


def ink(model: Model) -> str:
    """The colour of text that is read on the model's colour."""
    red, green, blue = to_rgb(colour(model))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.6 else INK


def line(model: Model, is_bright: bool = True) -> dict[str, Any]:
    """Keyword arguments of `Axes.plot` for a model's line; thin and grey, with its own marker and dash, unless it is bright."""
    shape = {"marker": model.look.marker, "linestyle": LINES[model.look.number % len(LINES)]}
    if is_bright:
        return shape | {"color": colour(model), "markeredgecolor": "white", "markeredgewidth": 0.5}
    return shape | {"color": FAINT, "markeredgewidth": 0.0, "markersize": FAINT_SIZE, "linewidth": 0.8, "zorder": 1.7}


def point(model: Model, is_bright: bool = True) -> dict[str, Any]:
    """Keyword arguments of `Axes.scatter` for a model's point; small and grey unless it is bright."""
    shape = {"marker": model.look.marker, "linewidths": 0.6}
    if is_bright:
        return shape | {"color": colour(model), "edgecolors": "white", "s": 70, "zorder": 3}
    return shape | {"color": FAINT, "edgecolors": "white", "s": 30, "zorder": 1.7}


Line = tuple[Sequence[float], Sequence[float], dict[str, Any]]  # xs, ys and the look of a line


def lines(panel: Axes, drawn: Iterable[Line], clip_on: bool = True) -> None:
    """Draw lines: those in colour one by one, all grey ones together, since a line of its own takes ten times as long."""
    faint = []
    for xs, ys, look in drawn:
        if look.get("color") == FAINT:
            faint.append((xs, ys, look))
        else:
            panel.plot(xs, ys, **look, clip_on=clip_on)
    segments(panel, [(xs, ys, {name: look[name] for name in PEN if name in look}) for xs, ys, look in faint], clip_on)
    marked: dict[str, list[tuple[float, float]]] = {}
    for xs, ys, look in faint:
        places = list(zip(xs, ys, strict=True))
        marked.setdefault(look["marker"], []).extend(places[i] for i in look.get("markevery", range(len(places))))
    for marker, places in marked.items():
        scatter(panel, places, FAINT_POINT | {"marker": marker}, clip_on)


def segments(panel: Axes, drawn: Sequence[Line], clip_on: bool = True) -> None:
    """Draw lines without markers as one artist; their looks hold PEN alone, and one zorder for all."""
    drawn = [(xs, ys, look) for xs, ys, look in drawn if len(xs)]
    if not drawn:
        return
    looks = [look for _, _, look in drawn]
    many = LineCollection(
        [np.column_stack([xs, ys]) for xs, ys, _ in drawn],
        colors=[look["color"] for look in looks],
        linestyles=[look.get("linestyle", "-") for look in looks],
        linewidths=[look["linewidth"] for look in looks],
        zorder=looks[0]["zorder"],
    )
    many.set_clip_on(clip_on)
    panel.add_collection(many, autolim=False)
    panel.update_datalim(np.concatenate([np.column_stack([xs, ys]) for xs, ys, _ in drawn]))
    panel.autoscale_view()


def scatter(panel: Axes, places: Sequence[tuple[float, float]], look: dict[str, Any], clip_on: bool = True) -> None:
    """Draw points of one look, as `point` gives it, as one artist."""
    if not places:
        return
    marker = MarkerStyle(look["marker"])
    many = PathCollection(
        [marker.get_path().transformed(marker.get_transform())],
        sizes=[look["s"]],
        offsets=places,
        offset_transform=panel.transData,
        facecolors=look["color"],
        edgecolors=look["edgecolors"],
        linewidths=look["linewidths"],
        zorder=look["zorder"],
    )
    many.set_transform(IdentityTransform())
    many.set_clip_on(clip_on)
    panel.add_collection(many, autolim=False)
    panel.update_datalim(places)
    panel.autoscale_view()


def figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out without overlap."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def title(drawn: Figure, text: str) -> None:
    """The title of a figure, in as many lines as its width asks for."""
    text = "\n".join(textwrap.wrap(text, max(20, int(drawn.get_figwidth() / 0.104))))
    drawn.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def save(drawn: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png, .svg and .pdf; equal figures give equal bytes, since no date and no version enters."""
    from results.report.figures.formats import formats  # with a package on fonts: not before it is needed

    stem.parent.mkdir(parents=True, exist_ok=True)
    drawn.get_layout_engine().execute(drawn)
    drawn.set_layout_engine("none")
    drawn.set_dpi(DOTS)
    written = []
    for ending, content in formats(drawn, METADATA).items():
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(content)
        written.append(path)
    return written


def settings(texts: Iterable[str] | None = None) -> Any:
    """The context in which figures are made and saved, whatever the user's own matplotlib settings are.

    `texts` are all that come from rows and stand in the figures, where they are known.
    """
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS, "font.family": fonts.families(texts)})


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
