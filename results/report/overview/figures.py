"""Figures over all comparisons: models by abilities, coloured by rank; and what quality costs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from results.report.evaluations import Model
from results.report.figures import artists, canvas, frame, style
from results.report.figures.kinds import names, ticks, tiles
from results.report.figures.words import Word, Words
from results.report.overview.abilities import COST, QUALITIES
from results.report.overview.matrix import Evidence, entry, leading, models
from results.rows import metrics

NUMBER, HEAD, UNIT = 6.5, 7.5, 6.5  # points of letters in the matrix: a number, a column's head and its unit
TURN = 35  # degrees of a column's head
HIGH, ACROSS = 2.9, 2  # inches of a panel with the words around it; panels in a row
FEW_NAMES = 24  # points of a panel that are all named
Point = tuple[Model, float, float]  # a model, what it costs and what it is worth


def draw(found: Sequence[Evidence], folder: Path) -> dict[str, list[Path]]:
    """Draw `folder`/matrix and `folder`/cost-of-ABILITY for each quality, as PNG, SVG and PDF; the files by name."""
    first, drawn = leading(found), {}
    if not first:
        return drawn
    with style.settings(text for one in first for text in one.evaluation.texts()):
        drawn["matrix"] = canvas.save(matrix(first), folder / "matrix")
        for one in first:
            if one.ability in QUALITIES and (made := cost(one, found)) is not None:
                name = f"cost-of-{one.ability.name}".replace(" ", "-")
                drawn[name] = canvas.save(made, folder / name)
    return drawn


def matrix(first: Sequence[Evidence]) -> Figure:
    """Models downwards, abilities to the right: the number, on a colour that is dark for the first rank of its column."""
    shown = models(first)
    drawn = canvas.figure(0.6 + 0.2 * len(shown))
    note = "the darker, the better its rank in the column; palest: no better than guessing and shortcuts"
    canvas.title(drawn, "Models and abilities", f"{note}; each column is one comparison")
    panel = canvas.panel(drawn)
    squares = []
    for x, one in enumerate(first):
        for y, model in enumerate(shown):
            if (known := entry(one, model)) is not None:
                squares.append(tiles.Tile(x, y, known.shade, metrics.number(one.column.metric, known.value)))
    tiles.draw(panel, squares, (len(shown), len(first)), NUMBER)
    ticks.fixed(panel.yaxis, range(len(shown)), [model.title for model in shown])
    around = frame.of(panel)
    around.left_looks = [{"colour": style.text_colour(model), "weight": "bold"} for model in shown]
    around.shows_below = False
    tiles.separate(panel, [model.family for model in shown], [""] * len(first), 1.0)
    units = [Word(metrics.metric(one.column.metric).unit, x, -0.5, UNIT, style.FLOOR) for x, one in enumerate(first)]
    turned = {"ha": "left", "va": "bottom", "dx": -6, "dy": 13, "angle": TURN}  # side by side they would meet
    heads = [Word(one.ability.name, x, -0.5, HEAD, weight="bold", **turned) for x, one in enumerate(first)]
    above = [*(word._replace(va="bottom", dy=3) for word in units), *heads]
    panel.add_artist(Words(above, panel.transData))
    return drawn


def cost(one: Evidence, found: Iterable[Evidence]) -> Figure | None:
    """A quality against what is paid for it in the same comparison, a panel for each cost that was measured there."""
    panels = [(name, points) for name in COST if len(points := _points(one, found, name)) > 1]
    if not panels:
        return None
    drawn, axes = canvas.grid(len(panels), HIGH, ACROSS)
    parts = [one.source.title, metrics.axis(one.column.metric)]
    parts += ["bars: 95 % confidence interval"] if any(known.low is not None for known in one.entries.values()) else []
    note = "; ".join([*parts, "in colour: the Pareto front, where no other model is better in both"])
    canvas.title(drawn, f"What quality costs: {one.ability.name}", note)
    for place, (panel, (name, points)) in enumerate(zip(axes, panels, strict=True)):
        _panel(panel, one, name, points)
        if not place % ACROSS:
            ticks.ylabel(panel, metrics.label(one.column.metric), HIGH - 0.7)
    return drawn


def _points(one: Evidence, found: Iterable[Evidence], name: str) -> list[Point]:
    """Models with a quality and a cost from one comparison at one size; without a timing, the state that the rows name."""
    shown = {(m.family, m.label): m for m in one.evaluation.learners}
    size = one.evaluation.setup["size"]
    same = [
        e for e in found if e.ability.name == name and e.source is one.source and e.evaluation.setup["size"] == size
    ]
    if same:
        paid = {key: known.value for key, known in same[0].entries.items()}
    else:
        paid = {key: m.state_bytes for key, m in shown.items() if m.state_bytes} if name == "state" else {}
    return [(shown[key], paid[key], known.value) for key, known in one.entries.items() if paid.get(key)]


def front(points: Sequence[Point], costs: int, worth: int) -> list[Point]:
    """The Pareto front, by cost: those that no other matches in one and exceeds in the other. Directions are +1 or -1."""

    def beaten(a: Point) -> bool:
        return any(
            costs * b[1] >= costs * a[1] and worth * b[2] >= worth * a[2] and (b[1], b[2]) != (a[1], a[2])
            for b in points
        )

    return sorted((point for point in points if not beaten(point)), key=lambda point: point[1])


def _panel(panel: Axes, one: Evidence, name: str, points: Sequence[Point]) -> None:
    ability, metric = COST[name], one.column.metric
    best = front(points, metrics.direction(ability.metric), metrics.direction(metric))
    dots = {"color": style.FLOOR, "linewidth": 1.0, "linestyle": ":", "zorder": 1}
    bars = list(_intervals(one, points, best))
    artists.lines(panel, [([x for _, x, _ in best], [y for *_, y in best], dots), *bars])
    for model, x, y in points:
        artists.scatter(panel, [(x, y)], style.point(model, is_bright=(model, x, y) in best))
    right, up = metrics.direction(ability.metric), metrics.direction(metric)  # names stand where nobody is better
    shown = [*best, *(point for point in points if point not in best)] if len(points) <= FEW_NAMES else best
    colours = [style.text_colour(point[0]) if point in best else style.FLOOR for point in shown]
    named = [names.Name(model.title, x, y, colour) for (model, x, y), colour in zip(shown, colours, strict=True)]
    unnamed = [(x, y) for model, x, y in points if (model, x, y) not in shown]
    names.beside(panel, named, [*unnamed, *_along(best), *_across(bars)], (right, up))
    panel.set(xscale="log", xlabel=metrics.axis(ability.metric), title=name)
    panel.xaxis.set_major_locator(_costs(panel, name, [x for _, x, _ in points]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(ability.metric, value)))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(metric, value)))
    panel.margins(x=0.22, y=0.12)


def _costs(panel: Axes, name: str, costs: Sequence[float]) -> LogLocator:
    """Where the ticks of costs stand: bytes at powers of 4, of 16 where these would not fit side by side."""
    if name != "state":
        return LogLocator(subs=(1.0, 3.0))
    most = 4 ** (4 if panel.get_gridspec().ncols > 1 else 7)
    return LogLocator(base=4.0 if max(costs) <= most * min(costs) else 16.0)


def _intervals(one: Evidence, points: Sequence[Point], best: Sequence[Point]) -> Iterator[artists.Line]:
    """A bar for each interval over seeds, faint where another model is better in both."""
    known = {(model.family, model.label): one.entries[model.family, model.label] for model, *_ in points}
    for point in points:
        model, x, _ = point
        entry = known[model.family, model.label]
        if entry.low is not None:
            colour = style.colour(model) if point in best else to_rgba(style.FAINT, 0.7)
            yield [x, x], [entry.low, entry.high], {"color": colour, "linewidth": 1.0, "zorder": 1.4}


def _along(best: Sequence[Point]) -> list[tuple[float, float]]:
    """Places on the front's line, whose axis of costs is logarithmic: no name is to stand on it."""
    found = []
    for (_, x, y), (_, right, high) in pairwise(best):
        found += [(x ** (1 - t) * right**t, y + t * (high - y)) for t in np.linspace(0.1, 0.9, 9)]
    return found


def _across(bars: Iterable[artists.Line]) -> list[tuple[float, float]]:
    """Places on intervals' bars, on which no name is to stand either."""
    return [(x, low + t * (high - low)) for (x, _), (low, high), _ in bars for t in np.linspace(0.0, 1.0, 13)]


def _short(metric: str, value: float) -> str:
    """A tick: the number as tables have it, without noughts that say nothing."""
    number, _, unit = metrics.number(metric, value).partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {unit}".strip()
