"""Figures made of lines: accuracy against length, loss by position, speed against length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from results.report.evaluations import Evaluation
from results.report.figures import style
from results.report.figures.cast import Cast
from results.report.figures.legend import legend
from results.rows import metrics
from results.rows.readers import FLOOR, REFERENCE, SHORTCUT
from results.rows.row import canonical

SPEEDS = ("training_tokens_per_second", "prefill_tokens_per_second", "decoding_milliseconds_per_token")
PANEL_WIDTH, PANEL_HEIGHT, IN_A_ROW = 3.2, 2.8, 3


def by_length(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Accuracy against length, a panel for each variant or question; dashed: the best trivial baseline, dotted: shortcut."""
    keys = [key for key in evaluation.varying(metric) if key not in ("length", "depth")]
    wheres = evaluation.wheres(metric)
    lengths = sorted({where["length"] for where in wheres if "length" in where})
    panels = {canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in wheres}
    drawn, axes = _grid(len(panels), title)
    for panel, where in zip(axes, panels.values(), strict=True):
        points = [{**where, "length": length} for length in lengths]
        style.lines(
            panel,
            [
                _line([evaluation.point(model.label, metric, p) for p in points], 100.0, cast.line(model))
                for model in cast.models
            ],
        )
        for kind, look in LINES.items():
            known = [(i, found[1]) for i, p in enumerate(points) if (found := evaluation.best([kind], metric, p))]
            panel.plot([i for i, _ in known], [100 * value for _, value in known], **look)
        panel.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
        panel.set(title=", ".join(map(str, where.values())), xlabel="length", ylim=(-3, 103))
        panel.margins(x=0.08)
    for panel in axes[::IN_A_ROW]:
        panel.set_ylabel(metrics.axis(metric))
    legend(drawn, cast, readers=_best(evaluation))
    return drawn


def by_position(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Loss or accuracy by position in the text, each span at its middle; dashed: the best trivial baseline, dotted: shortcut."""
    scale = 100.0 if metrics.is_accuracy(metric) else 1.0
    wheres = sorted(evaluation.wheres(metric), key=lambda where: (where["from"], where["to"]))
    middles = [(where["from"] + where["to"]) / 2 for where in wheres]
    drawn = style.figure(6.4, 4.0)
    panel = drawn.subplots()
    style.title(drawn, title)
    style.lines(
        panel,
        [
            _line([evaluation.point(model.label, metric, where) for where in wheres], scale, cast.line(model), middles)
            for model in cast.models
        ],
    )
    for kind, look in LINES.items():
        best = [(x, evaluation.best([kind], metric, where)) for x, where in zip(middles, wheres, strict=True)]
        known = [(x, found[1]) for x, found in best if found]
        panel.plot([x for x, _ in known], [scale * value for _, value in known], **look)
    panel.set(xlabel="position in the text", ylabel=metrics.axis(metric), xscale="log")
    ticks = sorted({where["from"] for where in wheres if where["from"]} | {wheres[-1]["to"]})
    plain_ticks(panel, ticks)
    legend(drawn, cast, readers=_best(evaluation))
    return drawn


def speeds(evaluation: Evaluation, cast: Cast, title: str) -> Figure:
    """Training, prefill and decoding speed against context length, both axes logarithmic."""
    present = [metric for metric in SPEEDS if evaluation.measured(metric=metric)]
    setup = evaluation.setup
    facts = f"{setup['device']}, {setup['threads']} thread{'s' * (setup['threads'] != 1)}, {setup['dtype']}"
    drawn, axes = _grid(len(present), f"{title} ({facts})")
    for panel, metric in zip(axes, present, strict=True):
        lengths = sorted({where["length"] for where in evaluation.wheres(metric) if "length" in where})
        style.lines(
            panel,
            [
                _line(
                    [evaluation.point(model.label, metric, {"length": n}) for n in lengths],
                    1.0,
                    cast.line(model),
                    lengths,
                )
                for model in cast.models
            ],
        )
        panel.set(xscale="log", yscale="log", xlabel="context length", ylabel=metrics.axis(metric))
        panel.set_title(metric.split("_")[0])
        plain_ticks(panel, lengths)
        log_ticks(panel)
    legend(drawn, cast)
    return drawn


FLOOR_LINE: dict[str, Any] = {"color": style.FLOOR, "linestyle": (0, (4, 2)), "linewidth": 1.3, "zorder": 1.5}
LINES: dict[str, dict[str, Any]] = {
    FLOOR: FLOOR_LINE,
    SHORTCUT: {**FLOOR_LINE, "linestyle": (0, (1, 2))},
    REFERENCE: {**FLOOR_LINE, "linestyle": (0, (6, 2, 1, 2)), "linewidth": 0.9},
}


def _best(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The lines of the best trivial baseline, shortcut and reference that there are, as the legend calls them."""
    return {f"best {kind}": LINES[kind] for kind in LINES if any(model.reader == kind for model in evaluation.floors)}


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    columns = min(count, IN_A_ROW)
    lines = -(-count // columns)
    height = max(PANEL_HEIGHT * lines + 0.5, 4.0)
    drawn = style.figure(max(PANEL_WIDTH * columns, 4.6), height)
    axes = list(drawn.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    style.title(drawn, title)
    return drawn, axes[:count]


def _line(points: list, scale: float, look: dict[str, Any], xs: Sequence[float] | None = None) -> style.Line:
    """The line through the points that there are."""
    xs = range(len(points)) if xs is None else xs
    known = [(x, scale * point.value) for x, point in zip(xs, points, strict=True) if point is not None]
    return [x for x, _ in known], [y for _, y in known], look


def plain_ticks(panel: Axes, values: Sequence[float]) -> None:
    """Ticks of the x axis at these values, written out."""
    panel.xaxis.set_major_locator(FixedLocator(list(values)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def log_ticks(panel: Axes) -> None:
    """Plain labels on a logarithmic y axis, more of them where it spans little more than one decade."""
    low, high = panel.get_ylim()
    wide = high > 30 * low
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _compact(value)))


def _compact(value: float) -> str:
    """1500 -> "1.5k"."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
