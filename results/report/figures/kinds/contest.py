"""A side-by-side benchmark's figure: the time of a step against the reference's, by length, both axes logarithmic."""

from __future__ import annotations

from matplotlib.figure import Figure

from results.report.evaluations import Evaluation
from results.report.figures import style
from results.report.figures.cast import Cast
from results.report.figures.kinds import line
from results.report.figures.legend import legend


def ratios(evaluation: Evaluation, cast: Cast, title: str) -> Figure:
    """One line for each candidate, with its 10 % to 90 % range over rounds; the reference is the line at 1."""
    lengths = sorted({where["length"] for where in evaluation.wheres("time_ratio")})
    drawn = style.figure(6.4, 4.2)
    panel = drawn.subplots()
    style.title(drawn, title)
    middles: list[style.Line] = []
    spreads: list[style.Line] = []
    for model in cast.models:
        look = cast.line(model)
        spans = [[evaluation.point(model.label, f"time_ratio{end}", {"length": n}) for n in lengths] for end in ENDS]
        known = [
            (n, *(p.value for p in points)) for n, *points in zip(lengths, *spans, strict=True) if None not in points
        ]
        if known:
            xs, middle, low, high = zip(*known, strict=True)
            middles.append((xs, middle, look))
            pen = {"color": look["color"], "linewidth": 1.0, "zorder": look.get("zorder", 2)}
            spreads += [([x, x], ends, pen) for x, *ends in zip(xs, low, high, strict=True)]
    style.lines(panel, middles)
    for zorder in sorted({pen["zorder"] for *_, pen in spreads}):
        style.segments(panel, [one for one in spreads if one[2]["zorder"] == zorder])
    panel.axhline(1.0, **line.FLOOR_LINE)
    panel.set(xscale="log", yscale="log", xlabel="length", ylabel=f"step time, {evaluation.settings['reference']} = 1")
    panel.margins(x=0.1)
    line.plain_ticks(panel, lengths)
    line.log_ticks(panel)
    legend(drawn, cast)
    return drawn


ENDS = ("", "_quantile_10", "_quantile_90")
