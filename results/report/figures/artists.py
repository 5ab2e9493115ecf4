"""What figures are drawn with: lines, segments, bands and points, many of them as one artist each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import IdentityTransform

from results.report.figures.style import FAINT, FAINT_POINT, PEN

BAND = 0.13  # how much of its colour a band has: lines behind it are still seen

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


class Band(NamedTuple):
    """An interval along a line: from `low` to `high` at each of `xs`."""

    xs: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: str


def bands(panel: Axes, drawn: Iterable[Band]) -> None:
    """Draw intervals as bands behind all lines, as one artist; those of a single place are not seen."""
    drawn = [band for band in drawn if len(band.xs) > 1]
    if not drawn:
        return
    outlines = [
        np.concatenate([np.column_stack([band.xs, band.low]), np.column_stack([band.xs, band.high])[::-1]])
        for band in drawn
    ]
    many = PolyCollection(outlines, facecolors=[to_rgba(band.colour, BAND) for band in drawn], linewidths=0, zorder=1.2)
    panel.add_collection(many, autolim=False)
    panel.update_datalim(np.concatenate(outlines))
    panel.autoscale_view()
