"""Figures from rows alone: which there are, what each needs, and why one is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from results.plans.paper import Form
from results.report.evaluations import Evaluation, Model, everyone
from results.report.figures import canvas, pool, style
from results.report.figures.cast import FEW, POINTS, cast, pointed
from results.report.figures.kinds import bar, contest, curve, families, heat_map, line, paper, ticks
from results.report.figures.kinds.findings import claims, rank
from results.report.findings.claims import ClaimVerdict
from results.rows import metrics

ABILITIES, FEWEST_ABILITIES = "models by ability", 3


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn (its files, PNG first), or the reason why it was not."""

    name: str
    title: str
    evaluation: str = ""  # the slug of the evaluation that it shows
    files: list[Path] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True)
class Asked:
    """A figure that is to be drawn: its file's name, its title, the slug of what it shows, and what makes it."""

    name: str
    title: str
    evaluation: str
    make: Callable[[], Figure]


def draw(
    evaluations: Sequence[Evaluation],
    folder: Path,
    only: Sequence[str] | None = None,
    kept: Collection[str] = (),
    forms: Sequence[Form] = (),
    width: str = "page",
    verdicts: Sequence[ClaimVerdict] = (),
) -> list[Drawing]:
    """Draw every figure that the evaluations have numbers for, as `folder`/NAME.png, .svg and .pdf.

    `only` names the models that are shown, `kept` those that are in colour however many there are; `forms` are figures in
    papers' own form; `width` is one of style.WIDTHS; `verdicts` are those on the comparison's claims. Of several set-ups of an
    evaluation, the one with the most models is drawn.
    """
    from results.report.figures.formats import files  # noqa: F401 - once, before there are several processes

    wanted = asked(evaluations, only, kept, forms, verdicts)
    texts = [text for evaluation in evaluations for text in evaluation.texts()]
    with style.settings([*texts, *(text for form in forms for text in paper.texts(form))], width):
        jobs = [partial(_drawn, one, folder) for one in wanted if isinstance(one, Asked)]
        made = iter(pool.results(jobs))
        return [next(made) if isinstance(one, Asked) else one for one in wanted]


def asked(
    evaluations: Sequence[Evaluation],
    only: Sequence[str] | None = None,
    kept: Collection[str] = (),
    forms: Sequence[Form] = (),
    verdicts: Sequence[ClaimVerdict] = (),
) -> list[Asked | Drawing]:
    """The figures that the evaluations have numbers for, and those that they have none for, in the order of a report."""
    shown = [evaluation for evaluation in evaluations if evaluation.main]
    kinds, papers = _of_kinds(shown, only, kept), _of_forms(shown, forms, kept)
    return [*kinds, *papers, *_of_claims(verdicts), *_of_all(shown, evaluations, only)]


def _of_kinds(
    shown: Sequence[Evaluation], only: Sequence[str] | None, kept: Collection[str]
) -> Iterator[Asked | Drawing]:
    for kind in KINDS:
        found = [
            Asked(name, title, evaluation.slug, make)
            for evaluation in shown
            for name, title, make in kind.jobs(evaluation, _models(evaluation, only), kept)
        ]
        yield from found
        is_missed = kind.needs and (not kind.of_contests or any(one.is_contest for one in shown))
        if not found and is_missed:
            yield Drawing(kind.name, kind.title, reason=f"no rows give {kind.needs}")


def _of_forms(shown: Sequence[Evaluation], forms: Sequence[Form], kept: Collection[str]) -> Iterator[Asked | Drawing]:
    """Each form from the first evaluation that has its numbers, or why not."""
    for form in forms:
        found = [evaluation for evaluation in shown if evaluation.task == form.task and paper.models(evaluation, form)]
        if found:
            yield Asked(form.name, form.title, found[0].slug, partial(paper.figure, found[0], form, kept))
        else:
            reason = f"no rows give {metrics.words(form.metric)} of {form.task} by length"
            yield Drawing(form.name, form.title, reason=reason)


def _of_claims(verdicts: Sequence[ClaimVerdict]) -> Iterator[Asked]:
    if claims.in_one_unit(verdicts):
        yield Asked(claims.NAME, claims.TITLE, "", partial(claims.figure, verdicts))


def _of_all(
    shown: Sequence[Evaluation], evaluations: Sequence[Evaluation], only: Sequence[str] | None
) -> Iterator[Asked]:
    """What is drawn of all evaluations together: models by ability, and their average ranks."""
    abilities = [
        (evaluation, evaluation.main_accuracies[0])
        for evaluation in shown
        if not evaluation.is_contest and evaluation.learners and evaluation.main_accuracies
    ]
    models = list(dict.fromkeys(model.label for evaluation, _ in abilities for model in _models(evaluation, only)))
    if len(abilities) >= FEWEST_ABILITIES and models:
        known = {model.label: model for model in everyone(evaluations)}
        lines = [model for label, model in known.items() if label in models]
        yield Asked("abilities", ABILITIES, "", partial(heat_map.by_ability, abilities, lines, ABILITIES))
    if rank.is_drawn(evaluations):
        yield Asked("average-ranks", rank.TITLE, "", partial(rank.figure, evaluations))


def _drawn(asked: Asked, folder: Path) -> Drawing:
    """A figure as files; what goes wrong in one figure costs that figure alone, and is told."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in asked.name)
    try:
        return Drawing(name, asked.title, asked.evaluation, canvas.save(asked.make(), folder / name))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Drawing(name, asked.title, reason=f"it could not be drawn ({type(error).__name__}: {error})")


Job = tuple[str, str, Callable[[], Figure]]
Jobs = Callable[[Evaluation, list[Model], Collection[str]], Iterator[Job]]


@dataclass(frozen=True)
class Kind:
    """A kind of figure; `jobs` yields one (file name, title, maker) for each that an evaluation has the numbers for."""

    name: str
    title: str
    needs: str  # "" for a form of another kind, which is not missed
    jobs: Jobs
    of_contests: bool = False  # not missed where no side-by-side benchmark was held


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
    for metric in evaluation.main_accuracies:
        if models and "length" in evaluation.varying(metric):
            title = f"{evaluation.title}: {metrics.words(metric)} against length"
            yield (
                f"{evaluation.slug}-{metric.replace('_', '-')}-by-length",
                title,
                lambda m=metric, t=title: line.by_length(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _families(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in evaluation.main_accuracies[:1]:
        several = len({model.family for model in models}) > 1 and len(models) > FEW
        if several and "length" in evaluation.varying(metric):
            title = f"{evaluation.title}: {metrics.words(metric)} against length, family by family"
            yield (
                f"{evaluation.slug}-{metric.replace('_', '-')}-by-family",
                title,
                lambda m=metric, t=title: families.by_length(evaluation, m, cast(evaluation, m, models, kept), t),
            )


def _depths(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in evaluation.main_accuracies[:1]:
        if models and {"depth", "length"} <= {key for where in evaluation.wheres(metric) for key in where}:
            for where in heat_map.panels(evaluation, metric):
                part = "-".join(str(value) for value in where.values())
                title = ", ".join(
                    filter(
                        None, [f"{evaluation.title}: {metrics.words(metric)} by depth and length", ticks.said(where)]
                    )
                )
                name = "-".join(filter(None, [evaluation.slug, metric.replace("_", "-"), "map", part]))
                yield (
                    name,
                    title,
                    lambda m=metric, w=where, t=title: heat_map.depth_by_length(
                        evaluation, m, w, cast(evaluation, m, models, kept), t
                    ),
                )


def _questions(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in evaluation.main_accuracies:
        keys = {key for where in evaluation.wheres(metric) for key in where}
        if models and ("question" in keys or ("length" in evaluation.varying(metric) and "depth" not in keys)):
            title = f"{evaluation.title}: {metrics.words(metric)} by {'question and ' * ('question' in keys)}length"
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
        drawn = contest.by_model if len(models) > POINTS else contest.ratios
        yield (
            f"{evaluation.slug}-ratio",
            title,
            lambda: drawn(evaluation, cast(evaluation, "time_ratio", models, kept), title),
        )


def _states(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    for metric in evaluation.main_accuracies[:1]:
        if any(model.state_bytes for model in models):
            title = f"{evaluation.title}: {metrics.words(metric)} against state"
            yield (
                f"{evaluation.slug}-accuracy-by-state",
                title,
                lambda m=metric, t=title: bar.by_state(evaluation, m, pointed(evaluation, m, models, kept), t),
            )


def _curves(evaluation: Evaluation, models: list[Model], kept: Collection[str]) -> Iterator[Job]:
    known = [model for model in models if model.label in evaluation.curves]
    if known:
        title = f"{evaluation.title}: training curves"
        yield (
            f"{evaluation.slug}-training-curves",
            title,
            lambda: curve.by_step(evaluation, evaluation.curves, cast(evaluation, curve.METRIC, known, kept), title),
        )


KINDS = (
    Kind("loss-by-model", "loss by model", "bits per byte", _losses),
    Kind("loss-by-position", "loss by position", "a loss by position (from, to)", _positions),
    Kind("accuracy-by-length", "accuracy against length", "an accuracy at more than one length", _lengths),
    Kind("accuracy-by-family", "accuracy against length by family", "", _families),
    Kind("needle-map", "depth-by-length needle map", "an accuracy by depth and length", _depths),
    Kind("question-map", "heat map of models by length", "an accuracy by question or length", _questions),
    Kind("speed", "throughput against length", "tokens per second or time per token", _speeds),
    Kind("ratio", "time ratio against length", "a contest's ratios to its reference", _ratios, of_contests=True),
    Kind("accuracy-by-state", "accuracy against state bytes", "an accuracy and a state's bytes", _states),
    Kind("training-curves", "training curves", "", _curves),
)
