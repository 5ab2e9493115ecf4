"""Figures with one mark for each model: loss bars, and accuracy against the bytes of the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from results.report.evaluations import Evaluation, Model, Point
from results.report.figures import artists, canvas, frame, style
from results.report.figures.cast import Cast
from results.report.figures.kinds import line, names, ticks
from results.report.figures.legend import legend
from results.report.figures.words import Word, Words
from results.rows import metrics
from results.rows.readers import NAMED
from results.rows.row import canonical

FAR = 1.3  # a trivial baseline above so many times the longest bar is told in words: its line would make all bars short
SPAN = 8  # how many times the smallest state the largest must be for powers of two to be ticks enough


def by_model(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """A bar for each model, families in order, with interval and value; dashed lines: the trivial baselines near enough."""
    where = evaluation.wheres(metric)[-1]
    found = [(model, point) for model in cast.models if (point := evaluation.point(model.label, metric, where))]
    floors, beyond = _near(
        _floors(evaluation, metric, where), FAR * max((point.value for _, point in found), default=0.0)
    )
    drawn = canvas.figure(0.6 + 0.17 * places(found)[-1] + 0.17 + 0.15 * len(floors))
    parts = [title, *(f"{metrics.words(key)} {value}" for key, value in where.items())]
    canvas.title(drawn, ", ".join(parts), f"{metrics.axis(metric)}; {_marks(found, beyond)}")
    panel = canvas.panel(drawn)
    frame.of(panel).grid = "x"
    rows = places(found)
    panel.barh(
        rows,
        [point.value for _, point in found],
        height=0.74,
        color=[style.colour(model) for model, _ in found],
        zorder=2,
    )
    pen = {"color": style.INK, "linewidth": 1.2, "zorder": 3}
    known = [(place, point) for place, (_, point) in zip(rows, found, strict=True) if point.low is not None]
    artists.lines(panel, [([point.low, point.high], [place, place], pen) for place, point in known])
    look = {"size": 7, "weight": "bold", "ha": "left", "dx": 5}  # in one column, that no dashed line crosses
    numbers = [
        Word(f"{point.value:.3f}", 0.0, place, colour=style.ink(model), **look)
        for place, (model, point) in zip(rows, found, strict=True)
    ]
    panel.add_artist(Words(numbers, panel.transData))
    _floor_lines(panel, floors, top=-0.75, bottom=max(rows, default=0.0) + 0.5)
    ticks.fixed(panel.yaxis, rows, [model.title for model, _ in found])
    frame.of(panel).left_looks = [{}] * len(found)
    largest = max([point.value for _, point in found] + [value for _, value in floors])
    panel.set(xlim=(0, 1.06 * largest), xlabel=metrics.label(metric))
    panel.set_ylim(max(rows) + 0.6, -0.7 - 0.75 * len(floors))
    return drawn


def by_state(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Accuracy, averaged over the whole evaluation, against the state's bytes, with 95 % intervals and what guessers score."""
    drawn, (panel,) = line.panel_grid(1)
    canvas.title(drawn, title, line.note(evaluation, metric, cast).replace("bands:", "bars:"))
    asked = [(model, evaluation.point(model.label, metric, {})) for model in cast.models if model.state_bytes]
    known = [(model, point) for model, point in asked if point is not None]
    sure = [(model, point) for model, point in known if point.low is not None and model.label in cast.bright]
    artists.lines(panel, [_interval(model, point, cast.line(model)) for model, point in sure])
    alike: dict[str, list[tuple[Model, Point]]] = {}
    for model, point in known:
        alike.setdefault(canonical(cast.point(model)), []).append((model, point))
    for group in alike.values():
        artists.scatter(panel, [(m.state_bytes, 100 * p.value) for m, p in group], cast.point(group[0][0]))
    lines = {kind: best for kind in line.LINES if (best := evaluation.best([kind], metric, {}))}
    for kind, (_, value) in lines.items():
        panel.axhline(100 * value, **line.LINES[kind])
    panel.set(xscale="log", xlabel="largest state of one sequence (bytes)")
    ticks.ylabel(panel, metrics.label(metric), line.ONE - 0.7)
    panel.set_xscale("log", base=2)
    sizes = [model.state_bytes for model, _ in known]
    if min(sizes) * SPAN < max(sizes):
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: metrics.byte_size(value).replace(".0 ", " ")))
    else:  # powers of two would be one or two
        ends = sorted({min(sizes), round((min(sizes) * max(sizes)) ** 0.5), max(sizes)})
        ticks.fixed(panel.xaxis, ends, [metrics.byte_size(value) for value in ends])
    panel.margins(x=0.1, y=0.1)
    shown = [(m.title, m.state_bytes, 100 * p.value, style.text_colour(m)) for m, p in known if m.label in cast.bright]
    rest = [(m.state_bytes, 100 * p.value) for m, p in known if m.label not in cast.bright]
    levels = [100 * value for _, value in lines.values()]
    bars = [(model.state_bytes, 100 * point.low, 100 * point.high) for model, point in sure]
    names.beside(panel, [names.Name(*one) for one in shown], rest, (1, 0), levels, bars)
    told = {f"best {NAMED[kind]}: {label.split(': ')[-1]}": line.LINES[kind] for kind, (label, _) in lines.items()}
    legend(drawn, replace(cast, models=tuple(model for model, _ in known)), readers=told, named=cast.bright)
    return drawn


def places(found: Sequence[tuple[Model, Any]]) -> list[float]:
    """Vertical places with a gap between families."""
    made, place = [], 0.0
    for index, (model, _) in enumerate(found):
        if index:
            place += 1.0 if model.family == found[index - 1][0].family else 1.45
        made.append(place)
    return made


def _floors(evaluation: Evaluation, metric: str, where: dict[str, Any]) -> list[tuple[str, float]]:
    asked = [(model.label, evaluation.point(model.label, metric, where)) for model in evaluation.floors]
    return [(label, point.value) for label, point in asked if point]


def _near(floors: list[tuple[str, float]], most: float) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The trivial baselines up to `most`, all where there is no bar, and those beyond."""
    near = [one for one in floors if not most or one[1] <= most]
    return near, [one for one in floors if one not in near]


def _floor_lines(panel: Axes, floors: list[tuple[str, float]], top: float, bottom: float) -> None:
    """A dashed line for each trivial baseline, named above the bars, each name on a height of its own."""
    named = []
    for index, (label, value) in enumerate(sorted(floors, key=lambda pair: pair[1])):
        height = top - 0.75 * index  # the line of a lower one begins below the name of a higher one, and crosses none
        panel.plot([value, value], [height - 0.3, bottom], **{**line.FLOOR_LINE, "zorder": 2.5})
        named.append(Word(f"{label} {value:.3f}", value, height, 7, style.FLOOR, ha="right", dx=-4))
    panel.add_artist(Words(named, panel.transData))


def _marks(found: list[tuple[Model, Point]], beyond: list[tuple[str, float]]) -> str:
    """What the marks on bars are, and the trivial baselines that would lie far outside."""
    has_intervals = any(point.low is not None for _, point in found)
    told = [*(["black: 95 % confidence interval"] if has_intervals else []), "dashed: trivial baselines"]
    outside = ", ".join(f"{label} {value:.3f}" for label, value in beyond)
    return "; ".join([*told, *([f"beyond the axis: {outside}"] if beyond else [])])


def _interval(model: Model, point: Point, look: dict[str, Any]) -> artists.Line:
    """The interval in the model's own dash, which tells it from others of its family."""
    pen = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.1, "zorder": 1.8}
    return [model.state_bytes] * 2, [100 * point.low, 100 * point.high], pen
