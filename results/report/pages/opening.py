"""What a page opens with: one sentence a claim (asked, come out, how sure), and the figure that shows it."""

from __future__ import annotations

from collections.abc import Sequence

from results.plans.paper import Form
from results.report.evaluations import Evaluation, Model, Point
from results.report.figures.catalogue import Drawing
from results.report.figures.kinds.findings import claims as claimed
from results.report.findings.claims import (
    LEVEL,
    NOT_MEASURED,
    NOT_REPRODUCED,
    OPPOSITE,
    REPRODUCED,
    SAME,
    UNDECIDED,
    ClaimVerdict,
)
from results.report.tables import summary
from results.report.tables.columns import Column
from results.rows import metrics
from schema.words import several

SIGNS = {SAME: "✔", REPRODUCED: "✔", OPPOSITE: "✘", NOT_REPRODUCED: "✘", LEVEL: "=", UNDECIDED: "?", NOT_MEASURED: "○"}


def sentences(verdicts: Sequence[ClaimVerdict], evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """A sentence of Markdown for each claim; where none is made, who leads each evaluation."""
    if verdicts:
        return tuple(map(_judged, verdicts))
    return tuple(_led(evaluation, column) for evaluation, column in summary.headlines(evaluations))


def leading(
    drawings: Sequence[Drawing],
    verdicts: Sequence[ClaimVerdict],
    forms: Sequence[Form],
    evaluations: Sequence[Evaluation],
    named: str = "",
) -> str:
    """The name of the figure that shows what is claimed: the one `named`, else the paper's form of most claims, else that of
    the claims, else the first.

    "" where nothing is drawn.
    """
    claims = [one.claim for one in verdicts]
    asked = {
        form.name: sum(form.task == claim.task and form.where.items() <= claim.where.items() for claim in claims)
        for form in forms
    }
    tasks = [claim.task for claim in claims]
    slugs = [evaluation.slug for evaluation in evaluations if evaluation.task in tasks]
    drawn = [one for one in drawings if one.files]
    if named in [one.name for one in drawn]:
        return named

    def place(one: Drawing) -> tuple[int, bool, bool]:
        return -asked.get(one.name, 0), one.name != claimed.NAME, one.name not in asked and one.evaluation not in slugs

    return min(drawn, key=place).name if drawn else ""


def _judged(one: ClaimVerdict) -> str:
    """A sign for the verdict, the claim, what came out, and in small letters how sure that is."""
    claim = one.claim
    where = "".join(f", {key} {value}" for key, value in claim.where.items())
    asked = f"{metrics.words(claim.metric)} of {claim.task}{where}"
    came_out = "" if one.verdict in (UNDECIDED, NOT_MEASURED) else f"{one.sentence}; "
    return f"{SIGNS[one.verdict]} **{claim.text}** *{one.verdict}*<br><small>{came_out}{asked}: {one.reason}</small>"


def _led(evaluation: Evaluation, column: Column) -> str:
    """Who is best by the headline number, how sure that is, and who beats all trivial baselines."""
    way = metrics.direction(column.metric)
    points = [(model, evaluation.point(model.label, column.metric, column.where)) for model in evaluation.learners]
    known = sorted(((m, p) for m, p in points if p), key=lambda pair: (-way * pair[1].value, pair[0].label))
    if not known or not way:
        return f"**{evaluation.title}**: {several(len(known), 'model')} measured."
    (best, point), *others = known
    bar = evaluation.bar(column.metric, column.where)
    has_learner = any(evaluation.learned(model.label, column.metric, column.where) != "no" for model, _ in known)
    if bar and not has_learner:
        who = f"none of {len(known)} models is" if others else "no model is"
        return (
            f"**{evaluation.title}, {column.header}**: {who} better than {evaluation.counted()} "
            f"({metrics.number(column.metric, bar[1])}); {best.title} comes nearest with {_value(column, point)}."
        )
    parts = [f"{best.title} {'is best with' if others else 'has'} {_value(column, point)}"]
    if others:
        names = [model.label for model, _ in others if summary.ties(way, known[0][1], evaluation, model, column)]
        parts.append(_tied(names) if names else f"then {others[0][0].title} with {_value(column, others[0][1])}")
    if bar:
        parts.append(_learned(evaluation, column, [model for model, _ in known]))
    return f"**{evaluation.title}, {column.header}**: {'; '.join(parts)}."


def _learned(evaluation: Evaluation, column: Column, models: Sequence[Model]) -> str:
    """How many are better than all that need not learn, by their interval or, of one seed, without any."""
    verdicts = [evaluation.learned(model.label, column.metric, column.where) for model in models]
    sure, unsure, some = (verdicts.count(one) for one in ("yes", "maybe", "some"))
    are = "are" if len(models) > 1 else "is"
    better = f"of {several(len(models), 'model')} {are} better than {evaluation.counted()}"
    if not unsure:
        return f"{sure} {better} by their interval" + (f", {some} more in some of their seeds" if some else "")
    return f"{unsure} {better}, of one seed without an interval" + (f", {sure} more by their interval" if sure else "")


def _value(column: Column, point: Point) -> str:
    half = "" if point.low is None else f" ± {metrics.number(column.metric, (point.high - point.low) / 2)}"
    return metrics.number(column.metric, point.value) + half


def _tied(names: Sequence[str]) -> str:
    named = ", ".join(names) if len(names) <= summary.FEW else f"{len(names)} models"
    return f"within their intervals as good: {named}"
