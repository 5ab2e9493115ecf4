"""A contest's figure: the time of a step against the reference's, by length, both axes logarithmic."""

from __future__ import annotations

from matplotlib.figure import Figure

from results.report.evaluations import Exam, Model
from results.report.figures import line, style


def ratios(exam: Exam, models: list[Model], palette: style.Palette, title: str) -> Figure:
    """One line for each entrant, with its 10 % to 90 % range over rounds; the reference is the line at 1."""
    lengths = sorted({where["length"] for where in exam.wheres("time_ratio")})
    drawn = style.figure(6.4 + line.LEGEND_WIDTH, 4.2)
    panel = drawn.subplots()
    drawn.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    for model in models:
        look = palette.line(model)
        spans = [[exam.point(model.label, f"time_ratio{end}", {"length": n}) for n in lengths] for end in ENDS]
        known = [
            (n, *(p.value for p in points)) for n, *points in zip(lengths, *spans, strict=True) if None not in points
        ]
        if known:
            xs, middle, low, high = zip(*known, strict=True)
            panel.plot(xs, middle, **look)
            panel.vlines(xs, low, high, colors=look["color"], linewidth=1.0)
    panel.axhline(1.0, **line.FLOOR_LINE)
    panel.set(xscale="log", yscale="log", xlabel="length", ylabel=f"step time, {exam.settings['reference']} = 1")
    panel.margins(x=0.1)
    line.plain_ticks(panel, lengths)
    line.log_ticks(panel)
    line.legend(drawn, models, palette)
    return drawn


ENDS = ("", "_quantile_10", "_quantile_90")
