"""Figures with one mark for each model: loss bars, and accuracy against the bytes of the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from results.report.evaluations import Exam, Model, Point
from results.report.figures import line, style
from results.report.figures.cast import Cast
from results.report.figures.legend import legend
from results.rows import metrics


def by_model(exam: Exam, metric: str, cast: Cast, title: str) -> Figure:
    """A bar for each model, families in order, with interval and value; dashed lines: the floors."""
    where = exam.wheres(metric)[-1]
    found = [(model, point) for model in cast.models if (point := exam.point(model.label, metric, where))]
    floors = [(model.label, point.value) for model in exam.floors if (point := exam.point(model.label, metric, where))]
    drawn = style.figure(7.6, 1.5 + 0.27 * len(found) + 0.16 * len(floors))
    panel = drawn.subplots()
    panel.grid(axis="y", visible=False)
    places = _places(found)
    for place, (model, point) in zip(places, found, strict=True):
        panel.barh(place, point.value, height=0.74, color=style.colour(model), zorder=2)
        if point.low is not None:
            panel.plot([point.low, point.high], [place, place], color=style.INK, linewidth=1.2, zorder=3)
        text = f"{point.value:.3f}"
        panel.annotate(
            text, (point.value, place), xytext=(-5, 0), textcoords="offset points", ha="right", va="center",
            fontsize=8, color=style.ink(model), fontweight="bold", zorder=4,
        )  # fmt: skip
    _floor_lines(panel, floors, top=-0.75, bottom=max(places, default=0.0) + 0.5)
    panel.set_yticks(places, [model.title for model, _ in found])
    panel.tick_params(axis="y", length=0, labelcolor=style.INK)
    largest = max([point.value for _, point in found] + [value for _, value in floors])
    panel.set(xlim=(0, 1.06 * largest), xlabel=metrics.axis(metric))
    panel.invert_yaxis()
    style.title(drawn, ", ".join([title, *(f"{metrics.words(key)} {value}" for key, value in where.items())]))
    return drawn


def by_state(exam: Exam, metric: str, cast: Cast, title: str) -> Figure:
    """Accuracy, averaged over the whole exam, against the bytes of the state, with the 95 % interval and what guessers score."""
    drawn = style.figure(6.0, 4.2)
    panel = drawn.subplots()
    style.title(drawn, title)
    shown = []
    for model in cast.models:
        point = exam.point(model.label, metric, {})
        if point is None or not model.state_bytes:
            continue
        shown.append(model)
        _interval(panel, model.state_bytes, point, cast.line(model))
        panel.scatter(model.state_bytes, 100 * point.value, **cast.point(model))
    lines = {kind: best for kind in line.LINES if (best := exam.best([kind], metric, {}))}
    for kind, (_, value) in lines.items():
        panel.axhline(100 * value, **line.LINES[kind])
    panel.set(xscale="log", xlabel="largest state of one sequence (bytes)", ylabel=metrics.axis(metric))
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: metrics.byte_size(value).replace(".0 ", " ")))
    panel.margins(x=0.1, y=0.1)
    names = {f"best {kind}: {label.split(': ')[-1]}": line.LINES[kind] for kind, (label, _) in lines.items()}
    legend(drawn, replace(cast, models=tuple(shown)), readers=names)
    return drawn


def _places(found: list[tuple[Model, Point]]) -> list[float]:
    """Vertical places with a gap between families."""
    places, place = [], 0.0
    for index, (model, _) in enumerate(found):
        if index:
            place += 1.0 if model.family == found[index - 1][0].family else 1.45
        places.append(place)
    return places


def _floor_lines(panel: Axes, floors: list[tuple[str, float]], top: float, bottom: float) -> None:
    """A dashed line for each floor, named above the bars, each name on a height of its own."""
    for index, (label, value) in enumerate(sorted(floors, key=lambda pair: pair[1])):
        height = top - 0.75 * (len(floors) - 1 - index)
        panel.plot([value, value], [height - 0.3, bottom], **{**line.FLOOR_LINE, "zorder": 2.5})
        panel.annotate(
            f"{label} {value:.3f}", (value, height), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", fontsize=8, color=style.FLOOR,
        )  # fmt: skip


def _interval(panel: Axes, x: float, point: Point, look: dict[str, Any]) -> None:
    """The interval in the model's own dash, which tells it from others of its family."""
    if point.low is not None:
        ends = [100 * point.low, 100 * point.high]
        panel.plot([x, x], ends, **{name: look[name] for name in ("color", "linestyle")}, linewidth=1.1, zorder=1.8)
