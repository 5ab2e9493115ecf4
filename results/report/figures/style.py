"""One look for every figure: families' hues, models' shades, and output that is equal byte for byte."""

from __future__ import annotations

import math
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from results.report.evaluations import Model

LIGHTEST, DARKEST, CHROMA = 0.76, 0.42, 0.135
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))
FLOOR = "#6b6b6b"
INK, GRID = "#222222", "#e3e3e3"
DOTS = 160  # an inch

METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "titanomachy",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
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


class Palette:
    """Colour, marker and line of every model.

    The hue is the family's; the shade is the model's rank among the family's models by name. Ranks are
    taken once, over all models that the report knows, and not over those that a figure draws: so a model looks the
    same in every figure, whichever are filtered out. Names decide nothing but the order within a family.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        families: dict[tuple[float, str], set[str]] = {}
        for model in models:
            families.setdefault((model.hue, model.family), set()).add(model.label)
        self._looks: dict[tuple[str, str], tuple[str, Any, Any]] = {}
        for (hue, family), labels in families.items():
            for rank, label in enumerate(sorted(labels)):
                shade = rank / (len(labels) - 1) if len(labels) > 1 else 0.4
                lightness = DARKEST + (LIGHTEST - DARKEST) * shade
                look = (_colour(lightness, hue), MARKERS[rank % len(MARKERS)], LINES[rank % len(LINES)])
                self._looks[family, label] = look

    def colour(self, model: Model) -> str:
        return self._looks[model.family, model.label][0]

    def ink(self, model: Model) -> str:
        """The colour of text that is read on the model's colour."""
        red, green, blue = to_rgb(self.colour(model))
        return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.6 else INK

    def line(self, model: Model) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a model's line."""
        colour, marker, line = self._looks[model.family, model.label]
        return {
            "color": colour,
            "marker": marker,
            "linestyle": line,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
        }

    def point(self, model: Model) -> dict[str, Any]:
        """Keyword arguments of `Axes.scatter` for a model's point."""
        colour, marker, _ = self._looks[model.family, model.label]
        return {"color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.6}


def figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out without overlap."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def save(drawn: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png, .svg and .pdf; equal figures give equal bytes, since no date and no version enters."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # with a package on fonts: not before it is needed
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stem.parent.mkdir(parents=True, exist_ok=True)
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")  # laid out once, for all formats
    # Not by `savefig`, which draws a figure that ever had a layout a second time for each format.
    writers = {
        "png": FigureCanvasAgg(drawn).print_png,
        "svg": FigureCanvasSVG(drawn).print_svg,
        "pdf": FigureCanvasPdf(drawn).print_pdf,
    }
    written = []
    for ending, metadata in METADATA.items():
        buffer = BytesIO()
        drawn.set_dpi(DOTS)  # vector formats leave their own
        writers[ending](buffer, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(buffer.getvalue())
        written.append(path)
    return written


def settings() -> Any:
    """The context in which figures are made and saved, whatever the user's own matplotlib settings are."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS})


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
