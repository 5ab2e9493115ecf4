"""Figures made of lines: accuracy against length, loss by position, speed against length."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from results.report.evaluations import Evaluation, Model, Point
from results.report.figures import artists, canvas, frame, style
from results.report.figures.cast import Cast
from results.report.figures.kinds import names, ticks
from results.report.figures.legend import legend
from results.rows import metrics
from results.rows.readers import FLOOR, NAMED, REFERENCE, SHORTCUT
from results.rows.row import canonical

SPEEDS = ("training_tokens_per_second", "prefill_tokens_per_second", "decoding_milliseconds_per_token")
FEW_BANDS = 4  # lines whose bands a reader still tells apart
STEP, MOST_ASIDE = 1.7, 12.0  # points between the bars of two lines at one place, and of the first and the last
ONE, MANY = 3.0, 2.15  # inches high: a panel alone, and one of several
PANEL = 2.2  # inches across that a panel of several has at least

FLOOR_LINE: dict[str, Any] = {"color": style.FLOOR, "linestyle": (0, (4, 2)), "linewidth": 1.3, "zorder": 1.5}
LINES: dict[str, dict[str, Any]] = {
    FLOOR: FLOOR_LINE,
    SHORTCUT: {**FLOOR_LINE, "linestyle": (0, (1, 2))},
    REFERENCE: {**FLOOR_LINE, "linestyle": (0, (6, 2, 1, 2)), "linewidth": 0.9},
}


class Track(NamedTuple):
    """A model's points along the x axis, those that there are."""

    model: Model
    xs: list[float]
    points: list[Point]


def by_length(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Accuracy against length, a panel for each variant or question; dashed: the best trivial baseline, dotted: shortcut."""
    keys = [key for key in evaluation.varying(metric) if key not in ("length", "depth")]
    wheres = evaluation.wheres(metric)
    lengths = sorted({where["length"] for where in wheres if "length" in where})
    panels = {canonical({k: w.get(k) for k in keys}): {k: w[k] for k in keys if k in w} for w in wheres}
    drawn, axes = panel_grid(len(panels))
    canvas.title(drawn, title, note(evaluation, metric, cast))
    named: Collection[str] = ()
    limits = percents(evaluation, metric, cast)
    for panel, where in zip(axes, panels.values(), strict=True):
        places = [{**where, "length": length} for length in lengths]
        tracks = tracks_of(evaluation, metric, cast, places)
        named = draw(panel, tracks, cast, 100.0, len(panels) == 1)
        readers(panel, evaluation, metric, places, range(len(lengths)), 100.0)
        labels = [f"{length:,}" for length in lengths]
        ticks.fixed(panel.xaxis, range(len(labels)), labels)
        ticks.turn(panel, labels, across(len(panels)))
        panel.set(title=ticks.said(where), ylim=limits)
        panel.margins(x=0.07)
    _label(axes, "length (tokens)", metric)
    legend(drawn, cast, readers=known_readers(evaluation), named=named)
    return drawn


def by_position(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Loss or accuracy by position in the text, each span at its middle; dashed: the best trivial baseline, dotted: shortcut."""
    scale = 100.0 if metrics.is_accuracy(metric) else 1.0
    wheres = sorted(evaluation.wheres(metric), key=lambda where: (where["from"], where["to"]))
    middles = [(where["from"] + where["to"]) / 2 for where in wheres]
    drawn, (panel,) = panel_grid(1)
    canvas.title(drawn, title, note(evaluation, metric, cast))
    panel.set(xscale="log")
    named = draw(panel, tracks_of(evaluation, metric, cast, wheres, middles), cast, scale, True)
    readers(panel, evaluation, metric, wheres, middles, scale)
    panel.margins(x=0.07)
    edges = sorted({where["from"] for where in wheres if where["from"]} | {wheres[-1]["to"]})
    ticks.plain_ticks(panel, edges, across(1))
    _label([panel], "position in the text (tokens)", metric)
    legend(drawn, cast, readers=known_readers(evaluation), named=named)
    return drawn


def speeds(evaluation: Evaluation, cast: Cast, title: str) -> Figure:
    """Training, prefill and decoding speed against context length, both axes logarithmic."""
    present = [metric for metric in SPEEDS if evaluation.measured(metric=metric)]
    setup = evaluation.setup
    facts = f"{setup['device']}, {setup['threads']} thread{'s' * (setup['threads'] != 1)}, {setup['dtype']}"
    drawn, axes = panel_grid(len(present))
    spread = (
        "; bands or bars: 10 % to 90 % of the repeats" if any(quantiles(evaluation, one) for one in present) else ""
    )
    canvas.title(drawn, title, f"{facts}{spread}")
    named: Collection[str] = ()
    for panel, metric in zip(axes, present, strict=True):
        lengths = sorted({where["length"] for where in evaluation.wheres(metric) if "length" in where})
        panel.set(xscale="log", yscale="log")
        tracks = tracks_of(evaluation, metric, cast, [{"length": n} for n in lengths], lengths)
        named = draw(panel, tracks, cast, 1.0, len(present) == 1)
        panel.margins(x=0.07)
        panel.set_title(f"{metrics.metric(metric).title}\n({metrics.metric(metric).unit}, {metrics.better(metric)})")
        frame.of(panel).title_size = 7.5
        ticks.plain_ticks(panel, lengths, across(len(present)))
        ticks.log_ticks(panel.yaxis)
        panel.set_xlabel("context length (tokens)")
    legend(drawn, cast, named=named)
    return drawn


def panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """So many panels of one size, as many in a row as the figure's width holds."""
    return canvas.grid(count, ONE if count == 1 else MANY, max(1, int(canvas.width() / PANEL)))


def across(count: int) -> float:
    """About the inches across one of so many panels."""
    columns = min(count, max(1, int(canvas.width() / PANEL)))
    return canvas.width() / columns - (1.6 if count == 1 else 0.5)


def tracks_of(
    evaluation: Evaluation,
    metric: str,
    cast: Cast,
    places: Sequence[Mapping[str, Any]],
    xs: Sequence[float] | None = None,
) -> list[Track]:
    """Each model's points at these settings, which stand at `xs` or side by side; a timing's intervals are its quantiles."""
    found = []
    for model in cast.models:
        points = [evaluation.point(model.label, metric, place) for place in places]
        if model.label in cast.bright and (ends := quantiles(evaluation, metric)):
            points = [
                point and _between(evaluation, model, point, ends, place)
                for point, place in zip(points, places, strict=True)
            ]
        known = [(x, p) for x, p in zip(range(len(places)) if xs is None else xs, points, strict=True) if p is not None]
        found.append(Track(model, [x for x, _ in known], [p for _, p in known]))
    return found


def quantiles(evaluation: Evaluation, metric: str) -> list[str]:
    """The metrics that are a metric's quantiles, low before high; none where they were not measured."""
    ends = [metric + ending for ending in metrics.QUANTILES]
    return ends if all(end in evaluation.metrics for end in ends) else []


def _between(evaluation: Evaluation, model: Model, point: Point, ends: list[str], place: Mapping[str, Any]) -> Point:
    low, high = (evaluation.point(model.label, end, place) for end in ends)
    return Point(point.value, low.value, high.value, point.count, point.seeds) if low and high else point


def draw(panel: Axes, tracks: Sequence[Track], cast: Cast, scale: float, may_name: bool = False) -> Collection[str]:
    """Draw tracks with bands for those in colour; returns the labels that are named at their ends, where there is room."""
    bright = [track for track in tracks if track.model.label in cast.bright and track.points]
    aside = _aside(bright)
    looks = [cast.line(t.model) | {"aside": aside.get(t.model.label, 0.0)} for t in tracks]
    artists.lines(
        panel, [(t.xs, [scale * p.value for p in t.points], look) for t, look in zip(tracks, looks, strict=True)]
    )
    _intervals(panel, bright, scale, aside)
    ends = [names.Name(t.model.title, t.xs[-1], scale * t.points[-1].value, style.text_colour(t.model)) for t in bright]
    if not may_name or not names.fit(ends, ONE - 0.5):
        return ()
    names.at_ends(panel, ends)
    return {track.model.label for track in bright}


def _aside(tracks: Sequence[Track]) -> dict[str, float]:
    """By how many points the lines of many stand side by side, so that none of their bars hides another."""
    if len(tracks) <= FEW_BANDS or not any(point.low is not None for track in tracks for point in track.points):
        return {}
    step = min(STEP, MOST_ASIDE / (len(tracks) - 1))
    return {track.model.label: step * (at - (len(tracks) - 1) / 2) for at, track in enumerate(tracks)}


def _intervals(panel: Axes, tracks: Sequence[Track], scale: float, aside: Mapping[str, float]) -> None:
    """Bands along a few lines, bars at the points of many, whose bands would hide one another."""
    known = [
        [(x, scale * p.low, scale * p.high) for x, p in zip(t.xs, t.points, strict=True) if p.low is not None]
        for t in tracks
    ]
    if len(tracks) <= FEW_BANDS:
        spans = [
            (list(zip(*ends, strict=True)), style.colour(t.model))
            for t, ends in zip(tracks, known, strict=True)
            if ends
        ]
        artists.bands(panel, [artists.Band(*span, colour) for span, colour in spans])
        return
    pens = [
        {
            "color": to_rgba(style.colour(t.model), 0.7),
            "linewidth": 0.9,
            "zorder": 1.6,
            "aside": aside.get(t.model.label, 0.0),
        }
        for t in tracks
    ]
    bars = [([x, x], [low, high], pen) for ends, pen in zip(known, pens, strict=True) for x, low, high in ends]
    artists.lines(panel, bars)


def readers(
    panel: Axes,
    evaluation: Evaluation,
    metric: str,
    places: Sequence[Mapping[str, Any]],
    xs: Sequence[float],
    scale: float,
) -> None:
    """Draw what the best trivial baseline, shortcut and reference score."""
    for kind, look in LINES.items():
        best = [(x, evaluation.best([kind], metric, place)) for x, place in zip(xs, places, strict=True)]
        known = [(x, found[1]) for x, found in best if found]
        artists.lines(panel, [([x for x, _ in known], [scale * value for _, value in known], look)])


def percents(evaluation: Evaluation, metric: str, cast: Cast) -> tuple[float, float]:
    """The ends of an axis of percent: 0 and, in steps of 20, what holds every number that is drawn."""
    wheres = evaluation.wheres(metric)
    points = [evaluation.point(model.label, metric, where) for model in cast.models for where in wheres]
    ends = [end for point in points if point for end in (point.value, point.high) if end is not None]
    ends += [best[1] for where in wheres for kind in LINES if (best := evaluation.best([kind], metric, where))]
    top = 20 * math.ceil(5 * max(ends, default=1.0) - 1e-9)
    return -0.03 * top, 1.03 * top


def known_readers(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The lines of the best trivial baseline, shortcut and reference that there are, as the legend calls them."""
    return {
        f"best {NAMED[kind]}": LINES[kind] for kind in LINES if any(model.reader == kind for model in evaluation.floors)
    }


def note(evaluation: Evaluation, metric: str, cast: Cast) -> str:
    """What stands below a figure's title: the metric, which way is better, what bands are, and who is grey."""
    seeds = max((len({row["seed"] for row in evaluation.rows[model.label]}) for model in cast.models), default=1)
    over = f" over {evaluation.repeats(seeds)}" if seeds > 1 else ""
    has_bands = metrics.is_accuracy(metric) or seeds > 1
    drawn_as = "bands" if len(cast.bright) <= FEW_BANDS else "bars"
    parts = [metrics.axis(metric), f"{drawn_as}: 95 % confidence interval{over}" if has_bands else ""]
    parts.append("grey: further models" if len(cast.bright) < len(cast.models) else "")
    return "; ".join(filter(None, parts))


def _label(axes: Sequence[Axes], xlabel: str, metric: str) -> None:
    """Axis labels: what is asked for, and the metric with its unit."""
    ticks.outer(axes, xlabel, metrics.label(metric), (ONE if len(axes) == 1 else MANY) - 0.7)
