"""Ticks and labels of a panel's axes, written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from results.report.figures import frame, words
from results.rows import metrics

BETWEEN = 0.08  # inches between two ticks' labels


def plain_ticks(panel: Axes, values: Sequence[float], inches: float = 4.0) -> None:
    """Ticks of the x axis at these values, written out; turned where they would not fit side by side."""
    labels = [f"{value:,.0f}" for value in values]
    fixed(panel.xaxis, values, labels)
    turn(panel, labels, inches)


def fixed(axis: Axis, places: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks of an axis at these places with these labels; unlike matplotlib's own way this makes no object for each."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter(list(labels)))


def turn(panel: Axes, labels: Sequence[str], inches: float) -> None:
    """Turn the labels of the x axis where they would not fit side by side."""
    if sum(words.width(label, frame.TICK) + BETWEEN for label in labels) > inches:
        frame.of(panel).turn = frame.TURNED


def log_ticks(axis: Axis) -> None:
    """Plain labels on a logarithmic axis, more of them where it spans little more than one decade."""
    low, high = axis.get_view_interval()
    wide = high > 30 * low
    axis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 3, 5, 7)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _compact(value)))


def _compact(value: float) -> str:
    """1500 -> "1.5k"."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def ylabel(panel: Axes, text: str, inches: float) -> None:
    """The label of the y axis, in as many lines as a panel of this height asks for."""
    panel.set_ylabel(words.wrapped(text, inches, frame.LABEL))


def outer(axes: Sequence[Axes], xlabel: str, text: str, inches: float) -> None:
    """Label equal axes of a grid of panels once: beside its first column, and below the last panel of each."""
    below = {panel.get_subplotspec().colspan.start: panel for panel in axes}.values()
    for panel in axes:
        if panel.get_subplotspec().is_first_col():
            ylabel(panel, text, inches)
        else:
            frame.of(panel).shows_left = False
        if panel in below:
            panel.set_xlabel(xlabel)
        else:
            frame.of(panel).shows_below = False


def said(where: Mapping[str, Any]) -> str:
    """Settings as a panel's title: {"pairs": 8, "depth": 0.5, "variant": "s-niah-1"} -> "8 pairs, depth 0.5, s-niah-1"."""
    return ", ".join(_said(metrics.words(key), value) for key, value in where.items())


def _said(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return (
        f"{value:,} {key if value != 1 else key[:-1]}"
        if key.endswith("s") and isinstance(value, int)
        else f"{key} {value}"
    )
