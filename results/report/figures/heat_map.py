"""Heat maps: depth by length for a needle, and models by question and length."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from results.report.evaluations import Exam, Model
from results.report.figures import style
from results.rows import metrics, readers
from results.rows.row import canonical

SHADES = ["#f4f1ea", "#bcd9cf", "#5fa8a0", "#246b7a", "#123a56"]
SCALE = LinearSegmentedColormap.from_list("share", SHADES).with_extremes(bad="#ffffff")
IN_A_ROW = 5


def panels(exam: Exam, metric: str) -> list[dict[str, Any]]:
    """The settings beside depth and length for which a metric has a map of its own."""
    keys = [key for key in exam.varying(metric) if key not in ("depth", "length")]
    found = {canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in exam.wheres(metric)}
    return [found[key] for key in sorted(found)]


def depth_by_length(
    exam: Exam, metric: str, where: dict[str, Any], models: list[Model], palette: style.Palette, title: str
) -> Figure:
    """One small map for each model, the best floor and shortcut first: depth downwards, length to the right, in percent."""
    inside = [w for w in exam.wheres(metric) if where.items() <= w.items() and {"depth", "length"} <= set(w)]
    depths, lengths = (sorted({w[key] for w in inside}) for key in ("depth", "length"))
    tiles = [({**where, "depth": depth, "length": length}) for depth in depths for length in lengths]
    maps: list[tuple[str, str, list[float | None]]] = []
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [exam.best([kind], metric, tile) for tile in tiles]
        if any(best):
            maps.append((f"best {kind}", style.FLOOR, [found and found[1] for found in best]))
    for model in models:
        points = [exam.point(model.label, metric, tile) for tile in tiles]
        maps.append((model.label, palette.colour(model), [point and point.value for point in points]))
    columns = min(IN_A_ROW, len(maps))
    lines = -(-len(maps) // columns)
    tile_width = max(0.42 * len(lengths), 1.5)
    drawn = style.figure(columns * (tile_width + 0.35) + 1.3, lines * (0.26 * len(depths) + 0.75) + 0.9)
    axes = list(drawn.subplots(lines, columns, squeeze=False).flat)
    for index, (panel, (label, colour, values)) in enumerate(zip(axes, maps, strict=False)):
        grid = [values[i : i + len(lengths)] for i in range(0, len(values), len(lengths))]
        image = _tiles(panel, grid, font=6.5)
        panel.set_title(label, color=colour, fontsize=9)
        below = index + columns >= len(maps)
        panel.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths] if below else [""] * len(lengths))
        first = index % columns == 0
        panel.set_yticks(range(len(depths)), [f"{d:g}" for d in depths] if first else [""] * len(depths))
        if first:
            panel.set_ylabel("depth")
    for unused in axes[len(maps) :]:
        unused.remove()
    drawn.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    drawn.supxlabel("length", fontsize=9)
    _scale(drawn, image, axes[: len(maps)], metric)
    return drawn


def by_question(exam: Exam, metric: str, models: list[Model], palette: style.Palette, title: str) -> Figure:
    """Models and floors downwards, questions and within them lengths to the right, shares in percent."""
    keys = [key for key in ("question", "length") if any(key in w for w in exam.wheres(metric))]
    columns = {canonical({k: w[k] for k in keys}): {k: w[k] for k in keys} for w in exam.wheres(metric)}
    order = sorted(columns.values(), key=lambda where: [metrics.sort_key(where[key]) for key in keys])
    lines = models + [floor for floor in exam.floors if exam.measured(floor.label, metric)]
    grid = []
    for model in lines:
        points = [exam.point(model.label, metric, where) for where in order]
        grid.append([point and point.value for point in points])
    drawn = style.figure(max(7.0, 2.6 + 0.42 * len(order)), 1.7 + 0.26 * len(lines))  # room for the title and the names
    panel = drawn.subplots()
    image = _tiles(panel, grid, font=7)
    panel.set_yticks(range(len(lines)), [model.label for model in lines])
    for text, model in zip(panel.get_yticklabels(), lines, strict=True):
        text.set(color=style.FLOOR if model.is_floor else palette.colour(model))
        text.set(fontstyle="italic" if model.is_floor else "normal", fontweight="normal" if model.is_floor else "bold")
    lengths = [f"{where['length']:,}" if "length" in where else "" for where in order]
    panel.set_xticks(range(len(order)), lengths, rotation=45 if max(map(len, lengths)) > 3 else 0)
    panel.set_xlabel("length")
    _separate(panel, [model.family for model in lines], [where["question"] for where in order])
    panel.set_title(title, pad=22)
    _scale(drawn, image, [panel], metric)
    return drawn


def _tiles(panel: Axes, grid: list[list[float | None]], font: float) -> Any:
    values = [[float("nan") if value is None else value for value in line] for line in grid]
    image = panel.imshow(values, cmap=SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            text, colour = ("-", style.FLOOR) if value is None else (f"{100 * value:.0f}", _ink(value))
            panel.text(x, y, text, ha="center", va="center", fontsize=font, color=colour)
    return image


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
