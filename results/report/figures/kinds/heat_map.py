"""Heat maps: depth by length for a needle, and models by question and length."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from results.report.evaluations import Evaluation
from results.report.figures import style
from results.report.figures.cast import Cast
from results.rows import metrics, readers
from results.rows.row import canonical

SHADES = ["#f4f1ea", "#bcd9cf", "#5fa8a0", "#246b7a", "#123a56"]
SCALE = LinearSegmentedColormap.from_list("share", SHADES).with_extremes(bad="#ffffff")
IN_A_ROW, GAP = 5, 1  # maps in a row, and tiles between two
FINE = 16  # how much larger numbers are when their curves are made lines

Map = tuple[str, str, list[float | None]]  # name, colour, shares
Number = tuple[float, float, float | None]  # x, y, share


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
    tiles = [({**where, "depth": depth, "length": length}) for depth in depths for length in lengths]
    maps: list[Map] = []
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [evaluation.best([kind], metric, tile) for tile in tiles]
        if any(best):
            maps.append((f"best {kind}", style.FLOOR, [found and found[1] for found in best]))
    for model in cast.models:
        points = [evaluation.point(model.label, metric, tile) for tile in tiles]
        maps.append((model.title, style.colour(model), [point and point.value for point in points]))
    drawn, panel, mesh = _maps(maps, len(depths), len(lengths))
    columns = min(IN_A_ROW, len(maps))
    rows = range(-(-len(maps) // columns))
    panel.set_yticks(*_ticks(rows, [f"{depth:g}" for depth in depths], GAP))
    panel.set_xticks(*_ticks(range(columns), [f"{length:,}" for length in lengths]))
    panel.set(xlabel="length", ylabel="depth")
    style.title(drawn, title)
    _scale(drawn, mesh, [panel], metric)
    return drawn


def _maps(maps: list[Map], deep: int, long: int) -> tuple[Figure, Axes, Any]:
    """Maps on one panel, a gap of one tile between them, each below its name; panels of their own take many times as long."""
    columns = min(IN_A_ROW, len(maps))
    rows = -(-len(maps) // columns)
    across, down = columns * (long + GAP) - GAP, rows * (deep + GAP)
    wide = max(0.42, 1.5 / (long + GAP))
    drawn = style.figure(across * wide + 1.6, down * 0.27 + 1.1)
    panel = drawn.subplots()
    values, numbers = np.full((down, across), np.nan), []
    for index, (name, colour, shares) in enumerate(maps):
        y, x = GAP + index // columns * (deep + GAP), index % columns * (long + GAP)
        values[y : y + deep, x : x + long] = np.array(shares, dtype=float).reshape(deep, long)
        numbers += [(x + i % long, y + i // long, share) for i, share in enumerate(shares)]
        panel.text(x + (long - 1) / 2, y - 0.75, name, ha="center", color=colour, fontsize=9, fontweight="bold")
    mesh = panel.imshow(values, cmap=SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _bare(panel)
    _write(panel, numbers, 6.5)
    return drawn, panel, mesh


def _ticks(maps: range, labels: list[str], before: int = 0) -> tuple[list[int], list[str]]:
    """Places and labels of the tiles of maps that follow one another."""
    step = len(labels) + GAP
    return [before + m * step + i for m in maps for i in range(len(labels))], labels * len(maps)


def by_question(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Models and trivial baselines downwards, questions and within them lengths to the right, shares in percent."""
    keys = [key for key in ("question", "length") if any(key in w for w in evaluation.wheres(metric))]
    columns = {canonical({k: w[k] for k in keys}): {k: w[k] for k in keys} for w in evaluation.wheres(metric)}
    order = sorted(columns.values(), key=lambda where: [metrics.sort_key(where[key]) for key in keys])
    lines = [*cast.models] + [floor for floor in evaluation.floors if evaluation.measured(floor.label, metric)]
    grid = []
    for model in lines:
        points = [evaluation.point(model.label, metric, where) for where in order]
        grid.append([point and point.value for point in points])
    drawn = style.figure(max(7.0, 2.6 + 0.42 * len(order)), 1.7 + 0.26 * len(lines))  # room for the title and the names
    panel = drawn.subplots()
    image = _tiles(panel, grid, font=7)
    panel.set_yticks(range(len(lines)), [model.title for model in lines])
    for text, model in zip(panel.get_yticklabels(), lines, strict=True):
        text.set(color=style.FLOOR if model.is_floor else style.colour(model))
        text.set(fontweight="normal" if model.is_floor else "bold")
    lengths = [f"{where['length']:,}" if "length" in where else "" for where in order]
    panel.set_xticks(range(len(order)), lengths, rotation=45 if max(map(len, lengths)) > 3 else 0)
    panel.set_xlabel("length")
    _separate(panel, [model.family for model in lines], [where["question"] for where in order])
    style.title(drawn, title)
    _scale(drawn, image, [panel], metric)
    return drawn


def _tiles(panel: Axes, grid: list[list[float | None]], font: float) -> Any:
    values = [[float("nan") if value is None else value for value in line] for line in grid]
    image = panel.imshow(values, cmap=SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _bare(panel)
    _write(panel, [(x, y, value) for y, line in enumerate(grid) for x, value in enumerate(line)], font)
    return image


def _bare(panel: Axes) -> None:
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _write(panel: Axes, numbers: list[Number], font: float) -> None:
    """Shares in percent on their tiles: each number is one shape, drawn wherever it stands, since texts take longest of all."""
    places: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for x, y, share in numbers:
        look = ("-", style.FLOOR) if share is None else (f"{100 * share:.0f}", _ink(share))
        places.setdefault(look, []).append((x, y))
    drawn = panel.get_figure()
    points = Affine2D().scale(1 / 72) + drawn.dpi_scale_trans
    for (text, colour), found in places.items():
        shape = TextPath((0, 0), text, size=FINE * font).cleaned(curves=False)
        middle = shape.get_extents().get_points().mean(axis=0)
        shape = Affine2D().translate(*-middle).scale(1 / FINE).transform_path(shape)
        many = PathCollection([shape], offsets=found, offset_transform=panel.transData, facecolors=colour, linewidths=0)
        many.set_transform(points)
        many.set_in_layout(False)
        panel.add_collection(many, autolim=False)


def _ink(value: float) -> str:
    return "white" if value > 0.55 else style.INK


def _scale(drawn: Figure, image: Any, axes: list[Axes], metric: str) -> None:
    bar = drawn.colorbar(image, ax=axes, fraction=0.025, pad=0.015, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", "50", "100"])
    bar.outline.set_visible(False)
    bar.set_label(metrics.axis(metric), fontsize=8)


def _separate(panel: Axes, families: list[str], questions: list[str]) -> None:
    """White lines between families and between questions, and the questions' names on top."""
    for place in range(1, len(families)):
        if families[place] != families[place - 1]:
            panel.axhline(place - 0.5, color="white", linewidth=3)
    begin = 0
    for place in range(1, len(questions) + 1):
        if place == len(questions) or questions[place] != questions[begin]:
            middle = (begin + place - 1) / 2
            panel.annotate(
                str(questions[begin]), (middle, -0.5), xytext=(0, 4), textcoords="offset points",
                ha="center", va="bottom", fontsize=9, fontweight="bold",
            )  # fmt: skip
            if place < len(questions):
                panel.axvline(place - 0.5, color="white", linewidth=3)
            begin = place
