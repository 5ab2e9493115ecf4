"""What figures are drawn with: lines, bands and points, many of them as one artist, since one each takes ten times as long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, IdentityTransform

from results.report.figures.style import HEIGHT, SIZE
from results.rows.row import canonical

BAND = 0.13  # how much of its colour a band has: lines behind it are still seen

Line = tuple[Sequence[float], Sequence[float], dict[str, Any]]  # xs, ys and the look of a line, with or without markers


class Stroke(NamedTuple):
    """Lines of one look, each a row of places after another."""

    look: dict[str, Any]
    rows: list[np.ndarray]


class Curves(Artist):
    """Bands, lines and markers of a panel, drawn in this order; those of one look are one path."""

    def __init__(self, panel: Axes, zorder: float, clip_on: bool = True) -> None:
        super().__init__()
        self.panel = panel
        self.strokes: list[Stroke] = []
        self.marks: list[Stroke] = []  # each look as `scatter` takes it
        self.bands: list[tuple[Any, np.ndarray]] = []
        self.set_zorder(zorder)
        self.set_in_layout(False)
        panel.add_artist(self)
        self.set_clip_on(clip_on)

    def draw(self, renderer: Any) -> None:
        """Draw all."""
        for colour, corners in self.bands:
            path = Path(self._pixels([corners])[0], closed=False)
            renderer.draw_path(self._pen(renderer, colour, 0.0), path, IdentityTransform(), to_rgba(colour))
        for look, rows in self.strokes:
            pen = self._pen(renderer, look["color"], look["linewidth"])
            pen.set_dashes(*_dashes(look))
            aside = renderer.points_to_pixels(look["aside"])
            renderer.draw_path(pen, _joined(self._pixels(rows, aside)), IdentityTransform())
        for look, rows in self.marks:
            pen = self._pen(renderer, look["edgecolors"], look["linewidths"])
            shape = MarkerStyle(look["marker"])
            if not shape.is_filled():
                pen.set_foreground(look["color"])
                pen.set_linewidth(max(1.0, look["linewidths"]))
            size = renderer.points_to_pixels(look["s"] ** 0.5)
            placed = shape.get_transform() + Affine2D().scale(size)
            filled = to_rgba(look["color"]) if shape.is_filled() else None
            aside = renderer.points_to_pixels(look.get("aside", 0.0))
            renderer.draw_markers(
                pen, shape.get_path(), placed, Path(self._pixels(rows, aside)[0]), IdentityTransform(), filled
            )

    def _pen(self, renderer: Any, colour: Any, wide: float) -> Any:
        pen = renderer.new_gc()
        pen.set_foreground(to_rgba(colour), isRGBA=True)
        pen.set_linewidth(wide)
        pen.set_capstyle("butt")
        pen.set_joinstyle("round")
        if self.get_clip_on():
            pen.set_clip_rectangle(self.panel.bbox)
        return pen

    def _pixels(self, rows: Sequence[np.ndarray], aside: float = 0.0) -> list[np.ndarray]:
        return [self.panel.transData.transform(row) + (aside, 0.0) for row in rows]


def lines(panel: Axes, drawn: Iterable[Line], clip_on: bool = True) -> None:
    """Draw lines and, where their looks name any, their markers; those that stand higher above the panel later.

    A look's `aside` is how many points to the right of its places it is drawn.
    """
    drawn = [(xs, ys, HEIGHT | {"aside": 0.0} | look) for xs, ys, look in drawn if len(xs)]
    for height in sorted({look["zorder"] for _, _, look in drawn}):
        made = Curves(panel, height, clip_on)
        strokes: dict[str, Stroke] = {}
        marks: dict[str, Stroke] = {}
        for xs, ys, look in drawn:
            if look["zorder"] == height:
                row = np.column_stack([np.asarray(xs, float), np.asarray(ys, float)])
                _among(strokes, {name: look[name] for name in ("color", "linewidth", "linestyle", "aside")}).append(row)
                if "marker" in look:
                    _among(marks, _marker(look)).append(row[look.get("markevery", slice(None))])
        made.strokes = list(strokes.values())
        made.marks = [Stroke(look, [np.concatenate(rows)]) for look, rows in marks.values()]
        _show(panel, [row for stroke in made.strokes for row in stroke.rows])


def scatter(panel: Axes, places: Sequence[tuple[float, float]], look: dict[str, Any]) -> None:
    """Draw points of one look, as `style.point` gives it."""
    if places:
        made = Curves(panel, look["zorder"])
        made.marks = [Stroke(look, [np.array(places, float)])]
        _show(panel, made.marks[0].rows)


class Band(NamedTuple):
    """An interval along a line: from `low` to `high` at each of `xs`."""

    xs: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: str


def bands(panel: Axes, drawn: Iterable[Band]) -> None:
    """Draw intervals as bands behind all lines; those of a single place are not seen."""
    drawn = [band for band in drawn if len(band.xs) > 1]
    if not drawn:
        return
    made = Curves(panel, 1.2)
    for band in drawn:
        up, down = np.column_stack([band.xs, band.low]), np.column_stack([band.xs, band.high])[::-1]
        made.bands.append((to_rgba(band.colour, BAND), np.concatenate([up, down])))
    _show(panel, [corners for _, corners in made.bands])


def _among(known: dict[str, Stroke], look: dict[str, Any]) -> list[np.ndarray]:
    """The rows of a look among those known, which it joins."""
    return known.setdefault(canonical(look), Stroke(look, [])).rows


def _marker(look: dict[str, Any]) -> dict[str, Any]:
    """The look of a line's markers, as `scatter` takes it."""
    return {
        "marker": look["marker"],
        "color": look.get("markerfacecolor", look["color"]),
        "edgecolors": look.get("markeredgecolor", look["color"]),
        "linewidths": look.get("markeredgewidth", 0.0),
        "s": look.get("markersize", SIZE) ** 2,
        "aside": look["aside"],
    }


def _dashes(look: dict[str, Any]) -> tuple[float, list[float] | None]:
    """Where a line's dashes begin and how long they are, in points: they grow with its width, as matplotlib's do."""
    if isinstance(look["linestyle"], str):
        return 0.0, {"-": None, ":": [look["linewidth"], 1.65 * look["linewidth"]]}[look["linestyle"]]
    begin, lengths = look["linestyle"]
    return begin * look["linewidth"], [length * look["linewidth"] for length in lengths]


def _joined(rows: Sequence[np.ndarray]) -> Path:
    codes = [code for row in rows for code in (Path.MOVETO, *[Path.LINETO] * (len(row) - 1))]
    return Path(np.concatenate(rows), codes)


def _show(panel: Axes, rows: Sequence[np.ndarray]) -> None:
    """Let a panel's axes reach to all of these places."""
    panel.update_datalim(np.concatenate(rows))
    panel._request_autoscale_view()
