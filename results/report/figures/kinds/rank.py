"""The critical-difference figure: average ranks of models over blocks, drawn from statistics.FEWEST_BLOCKS blocks up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from results.report import statistics
from results.report.evaluations import Evaluation, Model, everyone
from results.report.figures import style
from results.report.findings import pairwise

TITLE = "average ranks over blocks"


def draw(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Draw `folder`/average-ranks.png, .svg and .pdf; no files where there are too few blocks or models."""
    with style.settings(text for evaluation in evaluations for text in evaluation.texts()):
        drawn = figure(evaluations)
        return style.save(drawn, folder / "average-ranks") if drawn else []


def figure(evaluations: Sequence[Evaluation]) -> Figure | None:
    """The figure of all models that have every block; None where there are too few blocks or models."""
    blocks = pairwise.blocks(evaluations)
    if not pairwise.are_ranked(blocks):
        return None
    ranks = statistics.average_ranks(blocks, 1)
    return _figure(ranks, len(blocks), [m for m in everyone(evaluations) if m.label in ranks])


def _figure(ranks: Mapping[str, float], blocks: int, models: Sequence[Model]) -> Figure:
    """A point for each model with a bar of half the critical difference to either side: bars that meet do not differ."""
    apart = statistics.critical_difference(len(ranks), blocks)
    shown = sorted(models, key=lambda model: (ranks[model.label], model.label))
    drawn = style.figure(6.4, 1.4 + 0.27 * len(shown))
    panel = drawn.subplots()
    pens = [{"color": style.colour(model), "linewidth": 2.4, "zorder": 2} for model in shown]
    ends = [(ranks[model.label] - apart / 2, ranks[model.label] + apart / 2) for model in shown]
    style.segments(panel, [(xs, [y, y], pen) for y, (xs, pen) in enumerate(zip(ends, pens, strict=True))])
    for place, model in enumerate(shown):
        style.scatter(panel, [(ranks[model.label], place)], style.point(model))
    panel.set_yticks(range(len(shown)), [model.title for model in shown])
    panel.set(xlabel=f"average rank over {blocks} blocks; where bars meet, no difference shown")
    style.title(drawn, f"Critical difference {apart:.2f}")
    panel.invert_yaxis()
    return drawn
