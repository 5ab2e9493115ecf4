"""Heat maps: depth by length for a needle, models by length, by question and length, and by ability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.report.evaluations import Evaluation, Model
from results.report.figures import canvas, frame, style
from results.report.figures.cast import Cast
from results.report.figures.kinds import ticks, tiles
from results.report.figures.kinds.tiles import GAP, Shares
from results.report.figures.words import Word, Words, width
from results.rows import metrics, readers
from results.rows.row import canonical

ACROSS, DOWN = 0.34, 0.17  # inches of a tile whose number is read
NAME, BESIDE = 7.5, 0.12  # points of a map's name, and inches between two of them
LEFT = 0.65  # inches that stand to the left of maps
ASKED = ("question", "variant")  # what columns stand below, where a metric was measured under it

Map = tuple[str, str, Shares]  # name, colour, shares


def panels(evaluation: Evaluation, metric: str) -> list[dict[str, Any]]:
    """The settings beside depth and length for which a metric has a map of its own."""
    keys = [key for key in evaluation.varying(metric) if key not in ("depth", "length")]
    found = {
        canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in evaluation.wheres(metric)
    }
    return [found[key] for key in sorted(found)]


def depth_by_length(evaluation: Evaluation, metric: str, where: dict[str, Any], cast: Cast, title: str) -> Figure:
    """One small map for each model, best trivial baseline and shortcut first: depth downwards, length to the right, in %."""
    inside = [w for w in evaluation.wheres(metric) if where.items() <= w.items() and {"depth", "length"} <= set(w)]
    depths, lengths = (sorted({w[key] for w in inside}) for key in ("depth", "length"))
    squares = [({**where, "depth": depth, "length": length}) for depth in depths for length in lengths]
    maps: list[Map] = []
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [evaluation.best([kind], metric, square) for square in squares]
        if any(best):
            maps.append((f"best {readers.NAMED[kind]}", style.FLOOR, [found and found[1] for found in best]))
    for model in cast.models:
        points = [evaluation.point(model.label, metric, square) for square in squares]
        maps.append((model.title, style.text_colour(model), [point and point.value for point in points]))
    texts = [f"{length:,}" for length in lengths]
    drawn, panel, columns = _maps(maps, len(depths), texts, title, metric)
    rows = range(-(-len(maps) // columns))
    ticks.fixed(panel.yaxis, *_ticks(rows, [f"{depth:g}" for depth in depths], GAP))
    ticks.fixed(panel.xaxis, *_ticks(range(columns), texts))
    ticks.turn(panel, texts, (canvas.width() - LEFT) * len(texts) / (columns * (len(texts) + GAP)))
    panel.set(xlabel="length (tokens)", ylabel="depth of the needle (share of the text)")
    return drawn


def _maps(maps: list[Map], deep: int, lengths: list[str], title: str, metric: str) -> tuple[Figure, Axes, int]:
    """Maps on one panel, a gap of one tile between them, each below its name; panels of their own take many times as long."""
    long, room = len(lengths), canvas.width() - LEFT
    longest = max(width(name, NAME, "bold") for name, *_ in maps) + BESIDE
    columns = max(1, min(len(maps), int(room / max(longest, (long + GAP) * ACROSS))))
    across, down = columns * (long + GAP), -(-len(maps) // columns) * (deep + GAP)
    drawn = canvas.figure(0.6 + down * DOWN)
    canvas.title(drawn, title, metrics.axis(metric))
    panel = canvas.panel(drawn)
    squares, named = [], []
    for index, (name, colour, shares) in enumerate(maps):
        y, x = GAP + index // columns * (deep + GAP), index % columns * (long + GAP)
        squares += [tiles.of_share(x + i % long, y + i // long, share) for i, share in enumerate(shares)]
        named.append(Word(name, x - 0.5, y - 0.5, NAME, colour, "bold", "left", "bottom", dy=1))
    tiles.draw(panel, squares, (down, across), 6)
    panel.add_artist(Words(named, panel.transData))
    return drawn, panel, columns


def _ticks(maps: range, labels: list[str], before: int = 0) -> tuple[list[int], list[str]]:
    """Places and labels of the tiles of maps that follow one another."""
    step = len(labels) + GAP
    return [before + m * step + i for m in maps for i in range(len(labels))], labels * len(maps)


def by_question(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Models and trivial baselines downwards; to the right lengths, and above them what is asked; shares in percent."""
    asked = [key for key in ASKED if any(key in where for where in evaluation.wheres(metric))]
    keys = [*asked, "length"]
    columns = {
        canonical({k: w[k] for k in keys if k in w}): {k: w[k] for k in keys if k in w}
        for w in evaluation.wheres(metric)
    }
    order = sorted(columns.values(), key=lambda where: [metrics.sort_key(where.get(key)) for key in keys])
    lines = [*cast.models, *(floor for floor in evaluation.floors if evaluation.measured(floor.label, metric))]
    grid = [[evaluation.point(model.label, metric, where) for where in order] for model in lines]
    above = [ticks.said({key: where[key] for key in asked if key in where}) for where in order]
    below = [f"{where['length']:,}" if "length" in where else "" for where in order]
    shares = [[point and point.value for point in line] for line in grid]
    return _table(lines, shares, above, below, "length (tokens)", title, metrics.axis(metric))


def by_ability(evaluations: Sequence[tuple[Evaluation, str]], models: Sequence[Model], title: str) -> Figure:
    """Models downwards, evaluations to the right, each by the mean of one accuracy over all that it asks."""
    grid = []
    for model in models:
        points = [evaluation.point(model.label, metric, {}) for evaluation, metric in evaluations]
        grid.append([point and point.value for point in points])
    names = [evaluation.title for evaluation, _ in evaluations]
    note = f"{', '.join(dict.fromkeys(metrics.label(metric) for _, metric in evaluations))}; higher is better"
    return _table(models, grid, [""] * len(names), names, "", title, note)


def _table(
    lines: Sequence[Model],
    grid: Sequence[Shares],
    above: Sequence[str],
    below: Sequence[str],
    xlabel: str,
    title: str,
    note: str,
) -> Figure:
    """Tiles with a model's name before each line of them, and two lines of words to columns."""
    drawn = canvas.figure(0.75 + DOWN * len(lines) + 0.05 * max(map(len, below)))
    canvas.title(drawn, title, note)
    panel = canvas.panel(drawn)
    room = (canvas.width() - 1.9) / max(1, len(below))
    squares = [tiles.of_share(x, y, share) for y, line in enumerate(grid) for x, share in enumerate(line)]
    tiles.draw(panel, squares, (len(lines), len(below)), min(7, max(4, 24 * room)))
    ticks.fixed(panel.yaxis, range(len(lines)), [model.title for model in lines])
    ticks.fixed(panel.xaxis, range(len(below)), below)
    around = frame.of(panel)
    around.left_looks = [
        {"colour": style.FLOOR} if model.is_floor else {"colour": style.text_colour(model), "weight": "bold"}
        for model in lines
    ]
    if max(width(text, frame.TICK) for text in below) + ticks.BETWEEN > room:
        around.turn = 90 if room < 0.2 else frame.TURNED
    panel.set_xlabel(xlabel)
    tiles.separate(panel, [model.family for model in lines], above, room)
    return drawn
