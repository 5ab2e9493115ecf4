"""A side-by-side benchmark's figure: the time of a step against the reference's, by length, both axes logarithmic."""

from __future__ import annotations

from matplotlib.figure import Figure

from results.report.evaluations import Evaluation
from results.report.figures import canvas
from results.report.figures.cast import Cast
from results.report.figures.kinds import line, ticks
from results.report.figures.legend import legend


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
    ticks.log_ticks(panel)
    legend(drawn, cast, named=named)
    return drawn
