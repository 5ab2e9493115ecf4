"""Figures in a paper's own form: its axes, our rows as filled markers, its printed values as hollow ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.plans.paper import Form
from results.report.evaluations import Evaluation, Model
from results.report.families import MARKERS
from results.report.figures import artists, canvas, frame, style
from results.report.figures.cast import Cast, cast
from results.report.figures.kinds import line, paper_words, ticks
from results.report.figures.legend import LegendEntry, place
from results.rows import metrics, published

HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (1, 1.6)), "linewidth": 1.0, "zorder": 1.8}
THOUSANDS = "tokens_per_second"  # papers print thousands of tokens a second
HIGH = 2.9  # inches: the panels with the words around them
MOST = 8  # ticks that stand upright


def models(evaluation: Evaluation, form: Form) -> list[Model]:
    """Who has the form's metric at some length, families in order."""
    wanted = [model for model in evaluation.learners if not form.models or model.label in form.models]
    return [model for model in wanted if _track(evaluation, model, form).points]


def texts(form: Form) -> Iterable[str]:
    """Every text that a form brings into its figure."""
    printed = published.select(form.printed.table, form.printed.where)
    yield from (form.title, published.protocol(form.printed.table) or "")
    yield from printed.astype(str).to_numpy().ravel()


def figure(evaluation: Evaluation, form: Form, kept: Collection[str] = ()) -> Figure:
    """Our rows and the printed values: on one panel, or on one each where their lengths or their values do not overlap."""
    printed = published.select(form.printed.table, form.printed.where)
    shown = cast(evaluation, form.metric, models(evaluation, form), {*kept, *form.models}, form.where)
    tracks = [_track(evaluation, model, form) for model in shown.models]
    lengths = sorted({x for track in tracks for x in track.xs}), sorted(set(printed.length))
    values = [_scale(form.metric) * point.value for track in tracks for point in track.points], printed.number
    has_own_scales = _are_apart(*values)
    is_apart = _are_apart(*lengths) or has_own_scales
    drawn = canvas.figure(HIGH)
    canvas.title(drawn, form.title, paper_words.note(evaluation, form, printed))
    ratios = [max(3, len(own)) for own in lengths] if is_apart else [1]
    panels = [
        canvas.framed(one)
        for one in drawn.subplots(1, len(ratios), squeeze=False, width_ratios=ratios, sharey=not has_own_scales).flat
    ]
    for panel in panels[1:]:
        frame.of(panel).shows_left = has_own_scales
    line.draw(panels[0], tracks, shown, _scale(form.metric))
    looks = _looks(printed, form, evaluation)
    for name, look in looks.items():
        own = printed[printed.model == name].sort_values("length")
        artists.lines(panels[-1], [(own.length, own.number, look)])
    for panel, own in zip(panels, lengths if is_apart else [sorted({*lengths[0], *lengths[1]})], strict=True):
        theirs = printed if panel is panels[-1] else printed[:0]
        _axes(panel, own, lengths[0] if panel is panels[0] else [], evaluation, form, theirs)
    if is_apart:
        for panel, title in zip(panels, paper_words.SOURCES, strict=True):
            panel.set_title(title)
    ticks.ylabel(panels[0], _unit(form), HIGH - 0.7)
    _legend(drawn, shown, looks)
    return drawn


def _are_apart(ours: Collection[float], theirs: Collection[float]) -> bool:
    """Whether two ranges share one place at most."""
    return max(ours) <= min(theirs) or max(theirs) <= min(ours)


def _track(evaluation: Evaluation, model: Model, form: Form) -> line.Track:
    """Points by length; a length of 0 (no filler at all) has no place on the axis."""
    lengths = sorted({where["length"] for where in evaluation.wheres(form.metric) if where.get("length")})
    places = [{**form.where, "length": length} for length in lengths]
    one = Cast((model,), frozenset([model.label]))
    return line.tracks_of(evaluation, form.metric, one, places, lengths)[0]


def _scale(metric: str) -> float:
    """What turns our numbers into the paper's unit."""
    return 100.0 if metrics.is_accuracy(metric) else 1e-3 if metric.endswith(THOUSANDS) else 1.0


def _looks(printed: pd.DataFrame, form: Form, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """How each printed model is drawn: hollow, in the colour and with the marker of the model here that it names."""
    known = {model.label: model for model in evaluation.everyone}
    looks = {}
    for rank, name in enumerate(dict.fromkeys(printed.model)):
        here = known.get(form.same.get(name, ""))
        look = style.line(here) if here else {"color": style.FLOOR, "marker": MARKERS[rank % len(MARKERS)]}
        looks[name] = look | HOLLOW | {"markeredgecolor": look["color"], "markeredgewidth": 1.1}
    return looks


def _axes(
    panel: Axes, lengths: Sequence[int], ours: Sequence[int], evaluation: Evaluation, form: Form, printed: pd.DataFrame
) -> None:
    panel.set(xscale=form.x_scale, yscale=form.y_scale)
    labels = [paper_words.tick(x, x in ours, evaluation, form, printed) for x in lengths]
    ticks.fixed(panel.xaxis, lengths, labels)
    frame.of(panel).turn = 60 if len(lengths) > MOST else 0
    panel.margins(x=0.06)
    panel.set_xlabel("length x batch" if form.by_batch else "sequence length (tokens)")


def _unit(form: Form) -> str:
    title = metrics.metric(form.metric).title
    return f"{title} (10³ tokens/s)" if form.metric.endswith(THOUSANDS) else metrics.label(form.metric)


def _legend(drawn: Figure, shown: Cast, looks: dict[str, dict[str, Any]]) -> None:
    """Who was measured here, and below them whom the paper prints."""
    ours, theirs = paper_words.SOURCES
    entries: list[LegendEntry] = [(ours, None), *((model.title, shown.line(model)) for model in shown.models)]
    place(drawn, [*entries, (theirs, None), *looks.items()])
