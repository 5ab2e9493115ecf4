"""The scores of a model as other projects take them: what is ranked, under the settings that tell it from its like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from results.report.evaluations import Evaluation, Model, Point
from results.report.tables import columns
from results.rows import metrics


class Score(NamedTuple):
    """A number pooled over seeds, where it was asked, and that in words ("s-niah-1, noise, length 64")."""

    metric: str
    where: dict[str, Any]
    point: Point

    @property
    def place(self) -> str:
        return columns.where_text(self.where)


def of_model(evaluation: Evaluation, model: Model) -> Iterator[Score]:
    """Every score of a model, as tables show them: averaged over depths, each metric apart; none that is about the training."""
    for metric in evaluation.metrics:
        is_score = metrics.is_ranked(metric) and metric not in metrics.ABOUT_TRAINING
        if is_score and not metric.endswith(metrics.QUANTILES):
            for where in columns.column_wheres(evaluation, metric):
                if (point := evaluation.point(model.label, metric, where)) is not None:
                    yield Score(metric, where, point)
