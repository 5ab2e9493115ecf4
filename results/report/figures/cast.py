"""Who a figure shows, and who of them in colour: all where they are few, else the focus, which a reader is to look at first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.report.evaluations import Evaluation, Model
from results.report.families import YOURS
from results.report.figures import style
from results.rows import metrics

FEW = 8  # models whose lines a reader tells apart in one panel
POINTS = 16  # models whose points find room for their names in one panel


@dataclass(frozen=True)
class Cast:
    """The models of a figure, families in order, and the labels of those that are drawn in colour; the rest is grey."""

    models: tuple[Model, ...]
    bright: frozenset[str]

    def line(self, model: Model) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a model's line."""
        return style.line(model, model.label in self.bright)

    def point(self, model: Model) -> dict[str, Any]:
        """Keyword arguments of `Axes.scatter` for a model's point."""
        return style.point(model, model.label in self.bright)


def cast(
    evaluation: Evaluation,
    metric: str,
    models: Sequence[Model],
    kept: Collection[str] = (),
    where: Mapping[str, Any] | None = None,
) -> Cast:
    """The cast of a figure of one metric; `kept` names models that are in colour however many there are.

    In colour are these, a user's own models, which stand first, and the best of each family, by the mean over all that
    `where` leaves open.
    """
    models = sorted(models, key=lambda model: model.family != YOURS)
    if len(models) <= FEW:
        return Cast(tuple(models), frozenset(model.label for model in models))
    way = metrics.direction(metric)
    bright = {model.label for model in models if model.family == YOURS or {model.label, model.name} & set(kept)}
    best: dict[str, tuple[float, str]] = {}
    for model in models:
        point = evaluation.point(model.label, metric, where or {})
        score = float("-inf") if point is None else way * point.value
        best[model.family] = max(best.get(model.family, (score, model.label)), (score, model.label))
    return Cast(tuple(models), frozenset(bright | {label for _, label in best.values()}))


def pointed(evaluation: Evaluation, metric: str, models: Sequence[Model], kept: Collection[str] = ()) -> Cast:
    """The cast of a figure where each model is one point: with its name beside it, it is told apart where a line would not be."""
    return cast(evaluation, metric, models, [model.label for model in models] if len(models) <= POINTS else kept)
