"""Which difficulty of a pilot passes: there the best models know neither everything nor next to nothing, nor do they guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.report.evaluations import Evaluation
from results.report.statistics import wilson
from results.report.tables import columns
from results.rows import metrics
from results.rows.row import canonical

LOWEST, HIGHEST = 0.30, 0.95  # between these shares of right answers the best models must lie
BEST = 3  # models
SPREAD = ("depth",)  # keys of `where` over which a question is spread, and which no plan chooses as a difficulty


@dataclass(frozen=True)
class Difficulty:
    """One setting that a task was asked under, and the best models there, best first, with their shares of right answers."""

    title: str
    metric: str
    where: dict[str, Any]
    best: tuple[tuple[str, float], ...]
    guesses: int = 0  # of the best models, those not shown by their answers to be better than the best trivial baseline

    @property
    def verdict(self) -> str:
        """Whether comparisons may ask this."""
        shares = [share for _, share in self.best]
        counts = {"too easy": sum(s > HIGHEST for s in shares), "too hard": sum(s < LOWEST for s in shares)}
        counts["no better than guessing"] = self.guesses
        odd = [f"{text} for {count} of {len(shares)}" for text, count in counts.items() if count]
        return ", ".join(odd) or "passes"

    @property
    def told(self) -> str:
        """The setting, the best models and the verdict in a sentence."""
        named = ", ".join(f"{name} {metrics.number(self.metric, share)}" for name, share in self.best)
        asked = ", ".join(filter(None, [metrics.words(self.metric), columns.where_text(self.where)]))
        return f"{self.title}, {asked}: {self.verdict} (best: {named})"


def difficulties(evaluations: Sequence[Evaluation]) -> list[Difficulty]:
    """Every setting that trained models were asked under, in shares of right answers, with the best of them."""
    found = []
    for evaluation in evaluations:
        if evaluation.main and not evaluation.is_timing and not evaluation.is_contest and evaluation.main_accuracies:
            metric = evaluation.main_accuracies[0]
            found += [_difficulty(evaluation, metric, where) for where in _settings(evaluation, metric)]
    return [one for one in found if one.best]


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """The settings with their best models and verdicts as a table with a note; "" where nothing was asked in shares."""
    found = difficulties(evaluations)
    if not found:
        return ""
    lines = ["| task | asked | best models, % | verdict |", "|---|---|---|---|"]
    for one in found:
        asked = ", ".join(filter(None, [metrics.words(one.metric), columns.where_text(one.where)]))
        named = ", ".join(f"{name} {metrics.number(one.metric, share)}" for name, share in one.best)
        lines.append(f"| {one.title} | {asked} | {named} | {one.verdict} |")
    note = (
        f"<sub>A difficulty passes where the best {BEST} models, means over seeds, lie between {100 * LOWEST:.0f} and "
        f"{100 * HIGHEST:.0f} % and above the best trivial baseline.</sub>"
    )
    return "\n".join(lines) + "\n\n" + note


def _settings(evaluation: Evaluation, metric: str) -> list[dict[str, Any]]:
    """The distinct settings of a metric without those that only spread a question."""
    kept = [key for key in evaluation.varying(metric) if key not in SPREAD]
    wheres = [{key: where[key] for key in kept if key in where} for where in evaluation.wheres(metric)]
    return list({canonical(where): where for where in wheres}.values())


def _difficulty(evaluation: Evaluation, metric: str, where: dict[str, Any]) -> Difficulty:
    points = [(model.label, evaluation.point(model.label, metric, where)) for model in evaluation.learners]
    known = sorted(((label, point) for label, point in points if point), key=lambda one: (-one[1].value, one[0]))[:BEST]
    guess = evaluation.best_floor(metric, where)
    guesses = sum(guess is not None and wilson(point.value, point.count)[0] <= guess[1] for _, point in known)
    return Difficulty(evaluation.title, metric, where, tuple((label, point.value) for label, point in known), guesses)
