"""The one table of a comparison: a line for each model, a number for each evaluation, and what the model costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from results.report.evaluations import Evaluation, Model, Point
from results.report.findings import solved
from results.report.tables import columns, table
from results.report.tables.columns import Column
from results.rows import metrics, readers
from results.rows.committed import MARK

NOTE = (
    "Bold: the best, and whoever lies within the interval of the best; underlined: the next, and whoever lies within its "
    "interval. ± half of the 95 % confidence interval; in brackets behind a speed: from the 10 % to the 90 % quantile of its "
    "repeats. ✓ better than the best trivial baseline and the best shortcut heuristic by that "
    f"interval, {columns.UNSURE}; did not learn: an accuracy that is not better than guessing, in no seed either; where "
    "the mean over seeds is not but some seeds are, their number stands below it. Trivial baselines guess; shortcut heuristics "
    "read without understanding what is asked. Where some seeds of a model have 95 % or more and others less than "
    "75 %, the number of those that solved the task stands below its mean."
)
FEW = 4  # models that are named one by one
NOT_LEARNED = "did not learn"
SPEED, TRAINED = "training_tokens_per_second", "training_seconds"

Cost = tuple[str, Callable[[Model], str]]  # a column's header and what it says of a model


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """One Markdown table over the evaluations that figures show; averages over all that an evaluation asks."""
    shown = headlines(evaluations)
    if not shown:
        return ""
    models = shown[0][0].everyone
    costs = [*_sizes(evaluations), *_speed(evaluations, shown)]
    heads = [*(f"{evaluation.title}: {c.header}" for evaluation, c in shown), *(head for head, _ in costs)]
    lines = ["| family | model | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(heads)]
    ranks = [ranked(evaluation, column) for evaluation, column in shown]
    for model in models:
        here = [next((m for m in evaluation.learners if m.label == model.label), model) for evaluation, _ in shown]
        titled = next((one for one in here if one.committed), model)
        cells = [
            _cell(evaluation, one, column, rank.get(model.label, 0))
            for one, (evaluation, column), rank in zip(here, shown, ranks, strict=True)
        ]
        told = [cost(model) for _, cost in costs]
        lines.append("| " + " | ".join([model.group, titled.title, *cells, *told]) + " |")
    for kind in (readers.FLOOR, readers.SHORTCUT):
        best = [evaluation.best([kind], c.metric, c.where) for evaluation, c in shown]
        if any(best):
            named = [f and f"{metrics.number(c.metric, f[1])} ({f[0]})" for f, (_, c) in zip(best, shown, strict=True)]
            cells = [*(text or "none" for text in named), *("" for _ in costs)]
            lines.append(f"| *{readers.NAMED[kind]}s* | *best {readers.NAMED[kind]}* | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def headlines(evaluations: Sequence[Evaluation]) -> list[tuple[Evaluation, Column]]:
    """The evaluations that the table has a column of, each with its number."""
    return [
        (evaluation, column)
        for evaluation in evaluations
        if evaluation.main and not evaluation.is_contest and evaluation.learners and (column := headline(evaluation))
    ]


def headline(evaluation: Evaluation) -> Column | None:
    """The number that stands for an evaluation: its first accuracy, averaged; else its loss; else its training speed."""
    accuracies = evaluation.main_accuracies
    if accuracies:
        return Column(f"{metrics.words(accuracies[0])} %, mean over all", accuracies[0], {})
    for metric in ("bits_per_byte", SPEED, *evaluation.metrics):
        wheres = evaluation.wheres(metric)
        if wheres and metric not in metrics.ABOUT_TRAINING:
            return Column(f"{metrics.words(metric)}, {columns.where_text(wheres[-1])}".strip(", "), metric, wheres[-1])
    return None


def ranked(evaluation: Evaluation, column: Column) -> dict[str, int]:
    """1 for the best of a column's models and for those that tie with it, 2 for the next best and its ties."""
    way = metrics.direction(column.metric)
    known = {model.label: model for model in evaluation.learners if _point(evaluation, model, column)}
    found: dict[str, int] = {}
    for rank in (1, 2):
        left = [model for label, model in known.items() if label not in found]
        if not way or len(known) < 2 or not left:
            break
        best = max(left, key=lambda model: (way * _point(evaluation, model, column).value, model.label))
        point = _point(evaluation, best, column)
        found |= {m.label: rank for m in left if m is best or ties(way, point, evaluation, m, column)}
    return found


def ties(way: int, best: Point, evaluation: Evaluation, model: Model, column: Column) -> bool:
    """Whether a model's number lies within the best one's interval, or both are printed alike."""
    point = _point(evaluation, model, column)
    if point is None:
        return False
    bound = best.low if way > 0 else best.high
    alike = metrics.number(column.metric, point.value) == metrics.number(column.metric, best.value)
    return alike or (bound is not None and way * (point.value - bound) >= 0)


def _point(evaluation: Evaluation, model: Model, column: Column) -> Point | None:
    return evaluation.point(model.label, column.metric, column.where)


def _cell(evaluation: Evaluation, model: Model, column: Column, rank: int) -> str:
    """The number with its interval, rank and mark; or that nothing was learned; or why there is none."""
    point = _point(evaluation, model, column)
    if point is None:
        return table.cell(evaluation, model, column)
    text = table.with_spread(evaluation, model, column, point)
    below = _solved(evaluation, model, column)
    if _is_chance(evaluation, column, point):
        good, seeds = _above_guesses(evaluation, model, column)
        if not good:
            return NOT_LEARNED + (f" ({text})" if metrics.number(column.metric, point.value) != "0.0" else "")
        below = below or f"<br>learned by {good} of {seeds} seeds"
    marked = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)
    return marked + table.mark(evaluation, model, column) + below


def _solved(evaluation: Evaluation, model: Model, column: Column) -> str:
    """How many seeds solved the task, where some did and others came nowhere near: a mean between them is no model's."""
    told = solved.share(column.metric, evaluation.by_seed(model.label, column.metric, column.where).values())
    return f"<br>{told}" if told else ""


def _is_chance(evaluation: Evaluation, column: Column, point: Point) -> bool:
    """Whether an accuracy is not shown to be better than the best guess, or is none at all."""
    if not metrics.is_accuracy(column.metric):
        return False
    guess = evaluation.best_floor(column.metric, column.where)
    bound = point.value if point.low is None else point.low
    return metrics.number(column.metric, point.value) == "0.0" or (guess is not None and bound <= guess[1])


def _above_guesses(evaluation: Evaluation, model: Model, column: Column) -> tuple[int, int]:
    """Seeds that are better than the best guess by their own intervals, and all seeds."""
    guess = evaluation.best_floor(column.metric, column.where)
    return (0, 0) if guess is None else evaluation.seeds_above(model.label, column.metric, column.where, guess[1])


def _sizes(evaluations: Sequence[Evaluation]) -> list[Cost]:
    """Parameters and largest state of a model, wherever they were measured."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for model in (model for evaluation in evaluations if evaluation.main for model in evaluation.learners):
        parameters, state = found.get(model.label, (None, None))
        found[model.label] = parameters or model.parameters, max(filter(None, (state, model.state_bytes)), default=None)
    counts = {label: "" if parameters is None else f"{parameters:,}" for label, (parameters, _) in found.items()}
    states = {label: metrics.byte_size(state) for label, (_, state) in found.items()}
    return [("parameters", lambda m: counts.get(m.label, "")), ("state", lambda m: states.get(m.label, ""))]


def _speed(evaluations: Sequence[Evaluation], shown: Sequence[tuple[Evaluation, Column]]) -> list[Cost]:
    """Tokens a second as the training itself went; none where timed ones are a headline."""
    if any(column.metric == SPEED for _, column in shown):
        return []
    for evaluation in evaluations:
        if evaluation.main and not evaluation.is_contest and evaluation.measured(metric=TRAINED):
            return [(f"tokens/s in training ({evaluation.task})", partial(_rate, evaluation))]
    return []


def _rate(evaluation: Evaluation, model: Model) -> str:
    rows = [
        row
        for row in evaluation.measured(model.label, TRAINED)
        if row["where"].get("tokens") and row["value"] and not row.get(MARK)  # seconds of another machine
    ]
    if not rows:
        return ""
    return f"{sum(row['where']['tokens'] for row in rows) / sum(row['value'] for row in rows):,.0f}"
