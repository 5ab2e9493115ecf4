"""What a page opens with: one sentence a claim (asked, come out, how sure), and the figure that shows it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from results.report.evaluations import Evaluation, Point
from results.report.figures.catalogue import Drawing
from results.report.findings.claims import UNDECIDED, ClaimVerdict
from results.report.tables import summary
from results.report.tables.columns import Column
from results.rows import metrics


def sentences(verdicts: Sequence[ClaimVerdict], evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """A sentence of Markdown for each claim; where none is made, who leads each evaluation."""
    if verdicts:
        return tuple(map(_judged, verdicts))
    return tuple(_led(evaluation, column) for evaluation, column in summary.headlines(evaluations))


def leading(
    drawings: Sequence[Drawing],
    verdicts: Sequence[ClaimVerdict],
    forms: Collection[str],
    evaluations: Sequence[Evaluation],
) -> str:
    """The name of the figure that shows what is claimed: a paper's own form, else the first of the task; "" for none."""
    tasks = [one.claim.task for one in verdicts]
    slugs = [evaluation.slug for evaluation in evaluations if evaluation.task in tasks]
    drawn = [one for one in drawings if one.files]
    ordered = sorted(drawn, key=lambda one: (one.name not in forms, one.evaluation not in slugs))
    return ordered[0].name if ordered else ""


def _judged(one: ClaimVerdict) -> str:
    claim = one.claim
    where = "".join(f", {key} {value}" for key, value in claim.where.items())
    sentence = one.sentence[0].upper() + one.sentence[1:] if one.verdict == UNDECIDED else one.sentence
    asked = f"{metrics.words(claim.metric)} of {claim.task}{where}"
    return f"**{claim.text}: {one.verdict}.** {sentence} ({asked}: {one.reason})."


def _led(evaluation: Evaluation, column: Column) -> str:
    """Who is best by the headline number, how sure that is, and who beats all trivial baselines."""
    way = metrics.direction(column.metric)
    points = [(model, evaluation.point(model.label, column.metric, column.where)) for model in evaluation.learners]
    known = sorted(((m, p) for m, p in points if p), key=lambda pair: (-way * pair[1].value, pair[0].label))
    if not known or not way:
        return f"**{evaluation.title}**: {len(known)} models measured."
    (best, point), *others = known
    parts = [f"{best.title} is best with {_value(column, point)}"]
    if others:
        names = [model.label for model, _ in others if summary.ties(way, known[0][1], evaluation, model, column)]
        parts.append(_tied(names) if names else f"then {others[0][0].title} with {_value(column, others[0][1])}")
    if evaluation.bar(column.metric, column.where):
        learned = sum(evaluation.learned(m.label, column.metric, column.where) == "yes" for m, _ in known)
        parts.append(f"{learned} of {len(known)} models are better than {evaluation.counted()} by their interval")
    return f"**{evaluation.title}, {column.header}**: {'; '.join(parts)}."


def _value(column: Column, point: Point) -> str:
    half = "" if point.low is None else f" ± {metrics.number(column.metric, (point.high - point.low) / 2)}"
    return metrics.number(column.metric, point.value) + half


def _tied(names: Sequence[str]) -> str:
    named = ", ".join(names) if len(names) <= summary.FEW else f"{len(names)} models"
    return f"within their intervals as good: {named}"
