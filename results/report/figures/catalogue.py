"""Figures from rows alone: which there are, what each needs, and why one is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from results.report.evaluations import Exam, Model
from results.report.figures import bar, contest, heat_map, line, style
from results.report.figures.cast import cast
from results.rows import metrics


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn (its files, PNG first), or the reason why it was not."""

    name: str
    title: str
    exam: str = ""  # the slug of the exam that it shows
    files: list[Path] = field(default_factory=list)
    reason: str = ""


def draw(
    exams: Sequence[Exam], folder: Path, only: Sequence[str] | None = None, kept: Collection[str] = ()
) -> list[Drawing]:
    """Draw every figure that the exams have numbers for, as `folder`/NAME.png, .svg and .pdf.

    `only` names the models that are shown, `kept` those that are in colour however many there are. Of several set-ups of
    an exam, the one with the most models is drawn.
    """
    shown = [exam for exam in exams if exam.main]
    drawings: list[Drawing] = []
    with style.settings(text for exam in shown for text in exam.texts()):
        for kind in KINDS:
            found = [(exam.slug, *job) for exam in shown for job in kind.jobs(exam, _models(exam, only), kept)]
            for slug, name, title, make in found:
                drawings.append(_drawn(name, title, slug, make, folder))
            if not found and (not kind.of_contests or any(exam.is_contest for exam in exams)):
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
Jobs = Callable[[Exam, list[Model], Collection[str]], Iterator[Job]]


@dataclass(frozen=True)
class Kind:
    """A kind of figure; `jobs` yields one (file name, title, maker) for each that an exam has the numbers for."""

    name: str
    title: str
    needs: str
    jobs: Jobs
    of_contests: bool = False  # not missed where no contest was held


def main_accuracies(exam: Exam) -> list[str]:
    """The accuracies that figures show, whole answers first; what is generated or stricter stays in the tables."""
    found = [metric for metric in exam.metrics if metrics.is_accuracy(metric)]
    strict = ("generated", "string", "exact_accuracy")
    chosen = [metric for metric in found if not any(word in metric for word in strict)] or found
    return sorted(chosen, key=lambda metric: ("token" in metric, metric))


def _models(exam: Exam, only: Sequence[str] | None) -> list[Model]:
    """Models with at least one number in this exam, families in order."""
    wanted = [model for model in exam.learners if only is None or model.label in only or model.name in only]
    return [model for model in wanted if exam.measured(model.label)]


def _losses(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in ("bits_per_byte",):
        if models and exam.measured(metric=metric) and not exam.is_timing:
            title = f"{exam.title}: {metrics.words(metric)} by model"
            yield (
                f"{exam.slug}-loss",
                title,
                lambda m=metric, t=title: bar.by_model(exam, m, cast(exam, m, models, kept), t),
            )


def _positions(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in exam.metrics:
        if models and {"from", "to"} <= set(exam.varying(metric)):
            title = f"{exam.title}: {metrics.words(metric)}"
            yield (
                f"{exam.slug}-{'accuracy' if metrics.is_accuracy(metric) else 'loss'}-by-position",
                title,
                lambda m=metric, t=title: line.by_position(exam, m, cast(exam, m, models, kept), t),
            )


def _lengths(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(exam):
        if models and "length" in exam.varying(metric):
            title = f"{exam.title}: {metrics.words(metric)} against length"
            yield (
                f"{exam.slug}-{metric.replace('_', '-')}-by-length",
                title,
                lambda m=metric, t=title: line.by_length(exam, m, cast(exam, m, models, kept), t),
            )


def _depths(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(exam)[:1]:
        if models and {"depth", "length"} <= {key for where in exam.wheres(metric) for key in where}:
            for where in heat_map.panels(exam, metric):
                part = "-".join(str(value) for value in where.values())
                title = f"{exam.title}: {metrics.words(metric)} by depth and length{f', {part}' if part else ''}"
                name = "-".join(filter(None, [exam.slug, metric.replace("_", "-"), "map", part]))
                yield (
                    name,
                    title,
                    lambda m=metric, w=where, t=title: heat_map.depth_by_length(
                        exam, m, w, cast(exam, m, models, kept), t
                    ),
                )


def _questions(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(exam):
        if models and "question" in {key for where in exam.wheres(metric) for key in where}:
            title = f"{exam.title}: {metrics.words(metric)} by question and length"
            yield (
                f"{exam.slug}-{metric.replace('_', '-')}-map",
                title,
                lambda m=metric, t=title: heat_map.by_question(exam, m, cast(exam, m, models, kept), t),
            )


def _speeds(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    metric = next((metric for metric in line.SPEEDS if exam.measured(metric=metric)), "")
    if models and metric:
        title = f"{exam.title}: speed against context length"
        yield f"{exam.slug}-speed", title, lambda: line.speeds(exam, cast(exam, metric, models, kept), title)


def _ratios(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    if exam.is_contest and exam.measured(metric="time_ratio"):
        title = f"{exam.title}: time of a training step against the reference's (lower is better)"
        yield f"{exam.slug}-ratio", title, lambda: contest.ratios(exam, cast(exam, "time_ratio", models, kept), title)


def _states(exam: Exam, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in main_accuracies(exam)[:1]:
        if any(model.state_bytes for model in models):
            title = f"{exam.title}: {metrics.words(metric)} against state"
            yield (
                f"{exam.slug}-accuracy-by-state",
                title,
                lambda m=metric, t=title: bar.by_state(exam, m, cast(exam, m, models, kept), t),
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
