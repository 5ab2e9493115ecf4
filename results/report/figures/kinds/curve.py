"""Training curves: the loss of each model by step, the mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from results.report.evaluations import Evaluation
from results.report.evaluations.curves import Curve
from results.report.figures import canvas
from results.report.figures.cast import Cast
from results.report.figures.kinds import line
from results.report.figures.legend import legend

METRIC = "training_loss"  # what tells the best of a family


def by_step(evaluation: Evaluation, curves: Mapping[str, Curve], cast: Cast, title: str) -> Figure:
    """Loss against step, each point the mean of a span of steps; the loss is nats per asked token of the training's batches."""
    drawn, (panel,) = line.panel_grid(1)
    canvas.title(drawn, title, line.note(evaluation, METRIC, cast))
    tracks = [
        line.Track(model, [step for step, _ in curves[model.label]], [point for _, point in curves[model.label]])
        for model in cast.models
    ]
    named = line.draw(panel, tracks, cast, 1.0, True)
    panel.margins(x=0.03)
    panel.set(xlabel="step", ylabel="loss (nats per asked token)")
    legend(drawn, cast, named=named)
    return drawn
