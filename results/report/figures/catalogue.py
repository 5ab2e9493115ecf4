"""Figures from rows alone: which there are, what each needs, and why one is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from results.report.evaluations import Evaluation, Model
from results.report.figures import style
from results.report.figures.cast import cast
from results.report.figures.kinds import bar, contest, heat_map, line
from results.rows import metrics


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn (its files, PNG first), or the reason why it was not."""

    name: str
    title: str
    evaluation: str = ""  # the slug of the evaluation that it shows
    files: list[Path] = field(default_factory=list)
    reason: str = ""


def draw(
    evaluations: Sequence[Evaluation], folder: Path, only: Sequence[str] | None = None, kept: Collection[str] = ()
) -> list[Drawing]:
    """Draw every figure that the evaluations have numbers for, as `folder`/NAME.png, .svg and .pdf.

    `only` names the models that are shown, `kept` those that are in colour however many there are. Of several set-ups of
    an evaluation, the one with the most models is drawn.
    """
    shown = [evaluation for evaluation in evaluations if evaluation.main]
    drawings: list[Drawing] = []
    with style.settings(text for evaluation in shown for text in evaluation.texts()):
        for kind in KINDS:
            found = [
                (evaluation.slug, *job)
                for evaluation in shown
                for job in kind.jobs(evaluation, _models(evaluation, only), kept)
            ]
            for slug, name, title, make in found:
                drawings.append(_drawn(name, title, slug, make, folder))
            if not found and (not kind.of_contests or any(evaluation.is_contest for evaluation in evaluations)):
                drawings.append(Drawing(kind.name, kind.title, reason=f"no rows give {kind.needs}"))
    return drawings


def _drawn(name: str, title: str, slug: str, make: Callable[[], Figure], folder: Path) -> Drawing:
    """A figure as files; what goes wrong in one figure costs that figure alone, and is told."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    try:
        return Drawing(name, title, slug, style.save(make(), folder / name))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Drawing(name, title, reason=f"it could not be drawn ({type(error).__name__}: {error})")


Job = tuple[str, str, Callable[[], Figure]]
Jobs = Callable[[Evaluation, list[Model], Collection[str]], Iterator[Job]]


@dataclass(frozen=True)
class Kind:
    """A kind of figure; `jobs` yields one (file name, title, maker) for each that an evaluation has the numbers for."""

    name: str
    title: str
    needs: str
    jobs: Jobs
    of_contests: bool = False  # not missed where no side-by-side benchmark was held


def main_accuracies(evaluation: Evaluation) -> list[str]:
    """The accuracies that figures show, whole answers first; what is generated or stricter stays in the tables."""
    found = [metric for metric in evaluation.metrics if metrics.is_accuracy(metric)]
    strict = ("generated", "string", "exact_accuracy")
    chosen = [metric for metric in found if not any(word in metric for word in strict)] or found
    return sorted(chosen, key=lambda metric: ("token" in metric, metric))


def _models(evaluation: Evaluation, only: Sequence[str] | None) -> list[Model]:
    """Models with at least one number in this evaluation, families in order."""
    wanted = [model for model in evaluation.learners if only is None or model.label in only or model.name in only]
    return [model for model in wanted if evaluation.measured(model.label)]


def _losses(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in ("bits_per_byte",):
        if models and evaluation.measured(metric=metric) and not evaluation.is_timing:
            title = f"{evaluation.title}: {metrics.words(metric)} by model"
            yield (
                f"{evaluation.slug}-loss",
                title,
                lambda m=metric, t=title: bar.by_model(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _positions(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in evaluation.metrics:
        if models and {"from", "to"} <= set(evaluation.varying(metric)):
            title = f"{evaluation.title}: {metrics.words(metric)}"
            yield (
                f"{evaluation.slug}-{'accuracy' if metrics.is_accuracy(metric) else 'loss'}-by-position",
                title,
                lambda m=metric, t=title: line.by_position(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _lengths(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(evaluation):
        if models and "length" in evaluation.varying(metric):
            title = f"{evaluation.title}: {metrics.words(metric)} against length"
            yield (
                f"{evaluation.slug}-{metric.replace('_', '-')}-by-length",
                title,
                lambda m=metric, t=title: line.by_length(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _depths(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(evaluation)[:1]:
        if models and {"depth", "length"} <= {key for where in evaluation.wheres(metric) for key in where}:
            for where in heat_map.panels(evaluation, metric):
                part = "-".join(str(value) for value in where.values())
                title = f"{evaluation.title}: {metrics.words(metric)} by depth and length{f', {part}' if part else ''}"
                name = "-".join(filter(None, [evaluation.slug, metric.replace("_", "-"), "map", part]))
                yield (
                    name,
                    title,
                    lambda m=metric, w=where, t=title: heat_map.depth_by_length(
                        evaluation, m, w, cast(evaluation, m, models, kept), t
                    ),
                )


def _questions(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(evaluation):
        if models and "question" in {key for where in evaluation.wheres(metric) for key in where}:
            title = f"{evaluation.title}: {metrics.words(metric)} by question and length"
            yield (
                f"{evaluation.slug}-{metric.replace('_', '-')}-map",
                title,
                lambda m=metric, t=title: heat_map.by_question(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _speeds(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    metric = next((metric for metric in line.SPEEDS if evaluation.measured(metric=metric)), "")
    if models and metric:
        title = f"{evaluation.title}: speed against context length"
        yield (
            f"{evaluation.slug}-speed",
            title,
            lambda: line.speeds(evaluation, cast(evaluation, metric, models, kept), title),
        )


def _ratios(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    if evaluation.is_contest and evaluation.measured(metric="time_ratio"):
        title = f"{evaluation.title}: time of a training step against the reference's (lower is better)"
        yield (
            f"{evaluation.slug}-ratio",
            title,
            lambda: contest.ratios(evaluation, cast(evaluation, "time_ratio", models, kept), title),
        )


def _states(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(evaluation)[:1]:
        if any(model.state_bytes for model in models):
            title = f"{evaluation.title}: {metrics.words(metric)} against state"
            yield (
                f"{evaluation.slug}-accuracy-by-state",
                title,
                lambda m=metric, t=title: bar.by_state(evaluation, m, cast(evaluation, m, models, kept), t),
            )


KINDS = (
    Kind("loss-by-model", "loss by model", "bits per byte", _losses),
    Kind("loss-by-position", "loss by position", "a loss by position (from, to)", _positions),
    Kind("accuracy-by-length", "accuracy against length", "an accuracy at more than one length", _lengths),
    Kind("needle-map", "depth-by-length needle map", "an accuracy by depth and length", _depths),
    Kind("question-map", "question-by-length heat map", "an accuracy by question", _questions),
    Kind("speed", "throughput against length", "tokens per second or time per token", _speeds),
    Kind("ratio", "time ratio against length", "a contest's ratios to its reference", _ratios, of_contests=True),
    Kind("accuracy-by-state", "accuracy against state bytes", "an accuracy and a state's bytes", _states),
)
