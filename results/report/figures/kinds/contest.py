"""A side-by-side benchmark's figures: the time of a step against the reference's, by length or by model, on logarithmic axes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.report.evaluations import Evaluation, Model, Point
from results.report.figures import artists, canvas, frame, style
from results.report.figures.cast import Cast
from results.report.figures.kinds import bar, line, ticks
from results.report.figures.legend import legend
from results.report.figures.words import Word, Words

SHAPES = {"o": "round", "s": "square", "^": "triangle", "D": "diamond"}  # of a length's marks, and in words
HALF = 2.0  # the ratio of half the reference's speed


def ratios(evaluation: Evaluation, cast: Cast, title: str) -> Figure:
    """One line for each candidate, with its 10 % to 90 % range over rounds; the reference is the line at 1."""
    lengths = sorted({where["length"] for where in evaluation.wheres("time_ratio")})
    drawn, (panel,) = line.panel_grid(1)
    canvas.title(drawn, title, "bands or bars: 10 % to 90 % of the rounds; both axes are logarithmic")
    panel.set(xscale="log", yscale="log")
    tracks = line.tracks_of(evaluation, "time_ratio", cast, [{"length": n} for n in lengths], lengths)
    named = line.draw(panel, tracks, cast, 1.0, True)
    panel.axhline(1.0, **line.FLOOR_LINE)
    panel.set_xlabel("length (tokens)")
    ticks.ylabel(panel, f"step time, {evaluation.settings['reference']} = 1", line.ONE - 0.7)
    panel.margins(x=0.07)
    ticks.plain_ticks(panel, lengths, line.across(1))
    ticks.log_ticks(panel.yaxis)
    legend(drawn, cast, named=named)
    return drawn


def by_model(evaluation: Evaluation, cast: Cast, title: str) -> Figure:
    """A line for each candidate, families in order, with a mark for each length: for more of them than curves tell apart."""
    lengths = sorted({where["length"] for where in evaluation.wheres("time_ratio")})[: len(SHAPES)]
    asked = [
        (model, [evaluation.point(model.label, "time_ratio", {"length": n}) for n in lengths]) for model in cast.models
    ]
    found = [(model, points) for model, points in asked if any(points)]
    places = bar.places(found)
    drawn = canvas.figure(0.6 + 0.17 * places[-1] + 0.17)
    marks = ", ".join(f"{word} {length:,} tokens" for word, length in zip(SHAPES.values(), lengths, strict=False))
    canvas.title(drawn, title, f"{marks}; dashed: as fast as {evaluation.settings['reference']}, dotted: half as fast")
    panel = canvas.panel(drawn)
    frame.of(panel).grid = "x"
    panel.set(xscale="log", xlabel=f"step time, {evaluation.settings['reference']} = 1")
    values = [point.value for _, points in found for point in points if point]
    low, high = min(0.9, *values) / 1.15, max(HALF, *values) * 1.15
    for ratio, dash in ((1.0, "--"), (HALF, ":")):
        panel.plot([ratio, ratio], [-0.6, places[-1] + 0.6], **{**line.FLOOR_LINE, "linestyle": dash})
    told = [_row(panel, model, points, place) for place, (model, points) in zip(places, found, strict=True)]
    panel.add_artist(Words([word._replace(x=high) for word in told], panel.transData))
    ticks.fixed(panel.yaxis, places, [model.title for model, _ in found])
    frame.of(panel).left_looks = [{}] * len(found)
    panel.set(xlim=(low, high * (high / low) ** 0.16))
    panel.set_ylim(places[-1] + 0.6, -0.7)
    ticks.log_ticks(panel.xaxis)
    return drawn


def _row(panel: Axes, model: Model, points: list[Point | None], place: float) -> Word:
    """A candidate's marks, and what is written at the end of its line."""
    known = [(shape, point.value) for shape, point in zip(SHAPES, points, strict=False) if point]
    ends, colour = [value for _, value in known], style.colour(model)
    pen = {"color": colour, "linewidth": 1.6, "zorder": 2}
    artists.lines(panel, [([min(ends), max(ends)], [place, place], pen)])
    for shape, value in known:
        artists.scatter(panel, [(value, place)], style.point(model) | {"marker": shape, "s": 30})
    text = " / ".join(f"{point.value:.2f}" if point else "-" for point in points)
    return Word(text, ends[-1], place, 7, style.text_colour(model), ha="left", dx=5)
