"""A figure from empty to its files: of a page's or of a column's width, with its title, written equal byte for byte."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from results.report.figures import style, words
from results.report.figures.frame import Frame
from results.report.figures.layout import EDGE, Layout

DOTS = 160  # an inch
TITLE, NOTE = 10.5, 7.5  # points
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def width() -> float:
    """The inches across every figure under these settings: a page's text or one of its columns."""
    return matplotlib.rcParams["figure.figsize"][0]


def figure(height: float) -> Figure:
    """An empty figure, so high in inches before its heading and its legend are added."""
    drawn = Figure(figsize=(width(), height), dpi=DOTS, layout=Layout())
    FigureCanvasAgg(drawn)
    return drawn


def grid(panels: int, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, each so high with the words around it, at most so many of them in a row."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    drawn = figure(rows * height)
    shape = drawn.add_gridspec(rows, columns)
    return drawn, [framed(drawn.add_subplot(shape[place // columns, place % columns])) for place in range(panels)]


def panel(drawn: Figure) -> Axes:
    """The one panel of a figure."""
    return framed(drawn.add_subplot())


def framed(panel: Axes) -> Axes:
    """A panel with its frame."""
    Frame(panel)
    return panel


def title(drawn: Figure, text: str, note: str = "") -> None:
    """The title of a figure and a note below it, in as many lines as its width asks for; the figure grows by them."""
    layout = drawn.get_layout_engine()
    before = layout.above
    room = width() - 2 * EDGE
    for said, size, weight, colour in ((text, TITLE, "bold", style.INK), (note, NOTE, "normal", style.FLOOR)):
        if said:
            lines = words.wrapped(said, room, size, weight)
            look = {"fontsize": size, "weight": weight, "color": colour}
            made = drawn.text(0, 0, lines, va="top", linespacing=1.15, **look)
            made.set_parse_math(False)
            layout.heading.append(made)
    drawn.set_figheight(drawn.get_figheight() + layout.above - before)


def save(drawn: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png, .svg and .pdf; equal figures give equal bytes, since no date and no version enters."""
    from results.report.figures.formats.files import formats  # with a package on fonts: not before it is needed

    stem.parent.mkdir(parents=True, exist_ok=True)
    drawn.get_layout_engine().execute(drawn)
    drawn.set_layout_engine("none")
    written = []
    for ending, content in formats(drawn, METADATA).items():
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(content)
        written.append(path)
    return written
