"""Rows as `.eval_results/*.yaml`, the form in which a model's repository on the Hugging Face hub holds scores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from results.report.evaluations import Evaluation, Model
from results.report.exports import scores
from results.report.exports.scores import Score
from results.rows import metrics

DATASET = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
PLACE = ".eval_results"


class Board(NamedTuple):
    """Whose leaderboard the scores are for: a dataset of the hub that is a benchmark, its revision, and where they come from."""

    dataset: str
    revision: str = ""
    source: str = ""  # a URL


def files(comparison: str, evaluations: Sequence[Evaluation], board: Board) -> dict[str, str]:
    """The YAML file of each model and evaluation, `<model>/.eval_results/<comparison>-<evaluation>.yaml`, for its repository.

    `task_id` says what each score's task is called; shares are in percent, as tables print them. Raises ValueError for a dataset
    that is no OWNER/NAME.
    """
    if not DATASET.fullmatch(board.dataset):
        raise ValueError(f"A dataset of the hub is called OWNER/NAME, not {board.dataset!r}.")
    found = {}
    for evaluation in evaluations:
        for model in evaluation.learners:
            if lines := [
                line for score in scores.of_model(evaluation, model) for line in _entry(evaluation, model, score, board)
            ]:
                name = f"{task_part(comparison)}-{evaluation.slug}.yaml"
                found[f"{task_part(model.label)}/{PLACE}/{name}"] = "\n".join(lines) + "\n"
    return found


def task_id(evaluation: Evaluation, score: Score) -> str:
    """What a benchmark's eval.yaml calls the task of a score: evaluation, metric and settings in small letters and hyphens."""
    return "-".join(filter(None, map(task_part, (evaluation.slug, score.metric, score.place))))


def task_part(text: str) -> str:
    """Text in letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _entry(evaluation: Evaluation, model: Model, score: Score, board: Board) -> Iterator[str]:
    """One score as lines of YAML, whose text stands in double quotes as in JSON."""
    yield "- dataset:"
    yield f"    id: {_quoted(board.dataset)}"
    yield f"    task_id: {_quoted(task_id(evaluation, score))}"
    if board.revision:
        yield f"    revision: {_quoted(board.revision)}"
    yield f"  value: {json.dumps(_scale(score.metric) * score.point.value)}"
    yield f"  date: {_quoted(max(row['when'] for row in evaluation.measured(model.label)))}"
    if board.source:
        yield "  source:"
        yield f"    url: {_quoted(board.source)}"
        yield '    name: "Titanomachy"'
    yield f"  notes: {_quoted(_notes(evaluation, model, score))}"


def _notes(evaluation: Evaluation, model: Model, score: Score) -> str:
    """What is needed to read the number: metric, unit, which way is better, interval, seeds, size and training."""
    point, budget = score.point, evaluation.setup["budget"]
    parts = [metrics.axis(score.metric), score.place]
    if point.low is not None:
        low, high = (f"{_scale(score.metric) * end:.4g}" for end in (point.low, point.high))
        parts.append(f"95 % interval {low} to {high}")
    parts += [evaluation.repeats(point.seeds), f"{point.count:,} items"]
    parts += [f"{model.parameters:,} parameters"] if model.parameters else []
    parts += [f"trained on {budget['steps'] * budget['batch_tokens']:,} tokens"] if budget else []
    return "; ".join(filter(None, parts))


def _scale(metric: str) -> float:
    return 100.0 if metrics.is_accuracy(metric) else 1.0


def _quoted(text: Any) -> str:
    return json.dumps(str(text), ensure_ascii=False)
