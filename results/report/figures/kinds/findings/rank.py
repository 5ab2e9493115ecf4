"""The critical-difference figure: average ranks of models over blocks, drawn from statistics.FEWEST_BLOCKS blocks up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from results.report import statistics
from results.report.evaluations import Evaluation, Model, everyone
from results.report.figures import artists, canvas, frame, style
from results.report.figures.kinds import ticks
from results.report.findings import pairwise

TITLE = "average ranks over blocks"


def is_drawn(evaluations: Sequence[Evaluation]) -> bool:
    """Whether there are blocks and models enough."""
    return pairwise.are_ranked(pairwise.blocks(evaluations))


def figure(evaluations: Sequence[Evaluation]) -> Figure:
    """The figure of all models that have every block."""
    blocks = pairwise.blocks(evaluations)
    ranks = statistics.average_ranks(blocks, 1)
    return _figure(ranks, len(blocks), [m for m in everyone(evaluations) if m.label in ranks])


def _figure(ranks: Mapping[str, float], blocks: int, models: Sequence[Model]) -> Figure:
    """A point for each model with a bar of half the critical difference to either side: bars that meet do not differ."""
    apart = statistics.critical_difference(len(ranks), blocks)
    shown = sorted(models, key=lambda model: (ranks[model.label], model.label))
    drawn = canvas.figure(0.6 + 0.17 * len(shown))
    note = f"bars: critical difference {apart:.2f} (Nemenyi); where bars meet, no difference is shown; lower is better"
    canvas.title(drawn, TITLE, note)
    panel = canvas.panel(drawn)
    pens = [{"color": style.colour(model), "linewidth": 2.4, "zorder": 2} for model in shown]
    ends = [(ranks[model.label] - apart / 2, ranks[model.label] + apart / 2) for model in shown]
    artists.lines(panel, [(xs, [y, y], pen) for y, (xs, pen) in enumerate(zip(ends, pens, strict=True))])
    for place, model in enumerate(shown):
        artists.scatter(panel, [(ranks[model.label], place)], style.point(model))
    ticks.fixed(panel.yaxis, range(len(shown)), [model.title for model in shown])
    frame.of(panel).left_looks = [{}] * len(shown)
    panel.set(xlabel=f"average rank over {blocks} blocks")
    panel.invert_yaxis()
    return drawn
