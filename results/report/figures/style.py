"""How a model looks in every figure, and output that is equal byte for byte."""

from __future__ import annotations

import math
import textwrap
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from results.report.evaluations import Model
from results.report.figures import fonts

CHROMA, SHADES = 0.135, (0.42, 0.60, 0.78, 0.51, 0.69)  # OKLCH; five shades and eight dashes: one number tells of both
LINES = (
    "-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1, 1, 1, 1, 1)), (0, (3, 3)),
)  # fmt: skip
FLOOR, FAINT = "#6b6b6b", "#b9b9b9"
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
    return shape | {"color": FAINT, "markeredgewidth": 0.0, "markersize": 3.2, "linewidth": 0.8, "zorder": 1.7}


def point(model: Model, is_bright: bool = True) -> dict[str, Any]:
    """Keyword arguments of `Axes.scatter` for a model's point; small and grey unless it is bright."""
    shape = {"marker": model.look.marker, "linewidths": 0.6}
    if is_bright:
        return shape | {"color": colour(model), "edgecolors": "white", "s": 70, "zorder": 3}
    return shape | {"color": FAINT, "edgecolors": "white", "s": 30, "zorder": 1.7}


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
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # with a package on fonts: not before it is needed
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stem.parent.mkdir(parents=True, exist_ok=True)
    if engine := drawn.get_layout_engine():
        engine.execute(drawn)
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
        more = {"pil_kwargs": {"compress_level": 4}} if ending == "png" else {}  # half the time for 5 % of the bytes
        writers[ending](buffer, metadata=metadata, **more)
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(buffer.getvalue())
        written.append(path)
    return written


def settings() -> Any:
    """The context in which figures are made and saved, whatever the user's own matplotlib settings are."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS, "font.family": fonts.families()})


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
