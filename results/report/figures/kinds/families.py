"""The second form of a figure of lines: one panel for each family, whose models are in colour before all others in grey."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.report.evaluations import Evaluation
from results.report.figures import artists, canvas
from results.report.figures.cast import Cast
from results.report.figures.kinds import line, ticks
from results.report.figures.legend import legend
from results.rows import metrics

BEHIND = {"color": "#dcdcdc", "linestyle": "-", "linewidth": 0.6, "zorder": 1.0}


def by_length(evaluation: Evaluation, metric: str, cast: Cast, title: str) -> Figure:
    """Accuracy against length, averaged over all else, a panel for each family."""
    lengths = sorted({where["length"] for where in evaluation.wheres(metric) if "length" in where})
    places = [{"length": length} for length in lengths]
    families = list(dict.fromkeys(model.family for model in cast.models))
    bright = replace(cast, bright=frozenset(model.label for model in cast.models))
    tracks = line.tracks_of(evaluation, metric, bright, places)
    drawn, axes = line.panel_grid(len(families))
    others = "grey: the models of other families; mean over all that is asked at a length"
    canvas.title(drawn, title, f"{line.note(evaluation, metric, bright).replace('bars:', 'bands or bars:')}; {others}")
    limits = line.percents(evaluation, metric, bright)
    for panel, family in zip(axes, families, strict=True):
        own = [track for track in tracks if track.model.family == family]
        rest = [track for track in tracks if track.model.family != family]
        artists.lines(panel, [(t.xs, [100 * p.value for p in t.points], BEHIND) for t in rest])
        line.draw(panel, own, bright, 100.0)
        line.readers(panel, evaluation, metric, places, range(len(lengths)), 100.0)
        panel.set_ylim(*limits)
        _axes(panel, own[0].model.group, [f"{length:,}" for length in lengths], len(families))
    ticks.outer(axes, "length (tokens)", metrics.metric(metric).unit, line.MANY - 0.7)
    legend(drawn, bright, readers=line.known_readers(evaluation))
    return drawn


def _axes(panel: Axes, title: str, labels: list[str], panels: int) -> None:
    ticks.fixed(panel.xaxis, range(len(labels)), labels)
    ticks.turn(panel, labels, line.across(panels))
    panel.set_title(title)
    panel.margins(x=0.07)
