"""Figures in a paper's own form: its axes, our rows as filled markers, its printed values as hollow ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.plans.paper import Form
from results.report.evaluations import Evaluation, Model
from results.report.families import MARKERS
from results.report.figures import style
from results.report.figures.cast import Cast, cast
from results.report.figures.catalogue import Drawing
from results.report.figures.kinds.line import plain_ticks
from results.report.figures.legend import LegendEntry, place
from results.rows import metrics, published
from results.rows.row import FLOOR_FAMILY

HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "linestyle": (0, (1, 1.6)), "linewidth": 1.0, "zorder": 1.8}
THOUSANDS = "tokens_per_second"  # papers print thousands of tokens a second


def draw(
    evaluations: Sequence[Evaluation], forms: Sequence[Form], folder: Path, kept: Collection[str] = ()
) -> list[Drawing]:
    """Draw each form as `folder`/NAME.png, .svg and .pdf from the first evaluation that has its numbers, or say why not."""
    drawings = []
    with style.settings():
        for form in forms:
            found = [
                evaluation
                for evaluation in evaluations
                if evaluation.main and evaluation.task == form.task and _models(evaluation, form)
            ]
            if found:
                files = style.save(_figure(found[0], form, kept), folder / form.name)
                drawings.append(Drawing(form.name, form.title, found[0].slug, files))
            else:
                reason = f"no rows give {metrics.words(form.metric)} of {form.task} by length"
                drawings.append(Drawing(form.name, form.title, reason=reason))
    return drawings


def _models(evaluation: Evaluation, form: Form) -> list[Model]:
    """Who has the form's metric at some length, families in order."""
    wanted = [model for model in evaluation.learners if not form.models or model.label in form.models]
    return [model for model in wanted if any(_points(evaluation, model, form))]


def _points(evaluation: Evaluation, model: Model, form: Form) -> list[tuple[int, float]]:
    """Length and value, in the paper's unit; a length of 0 (no filler at all) has no place on the axis."""
    lengths = sorted({where["length"] for where in evaluation.wheres(form.metric) if where.get("length")})
    found = [
        (length, evaluation.point(model.label, form.metric, {**form.where, "length": length})) for length in lengths
    ]
    return [(length, _scale(form.metric) * point.value) for length, point in found if point is not None]


def _scale(metric: str) -> float:
    return 100.0 if metrics.is_accuracy(metric) else 1e-3 if metric.endswith(THOUSANDS) else 1.0


def _figure(evaluation: Evaluation, form: Form, kept: Collection[str] = ()) -> Figure:
    printed = published.select(form.printed.table, form.printed.where)
    shown = cast(evaluation, form.metric, _models(evaluation, form), {*kept, *form.models}, form.where)
    drawn = style.figure(6.4, 4.6)
    panel = drawn.subplots()
    style.title(drawn, form.title)
    points = [(_points(evaluation, model, form), shown.line(model)) for model in shown.models]
    style.lines(panel, [([x for x, _ in known], [y for _, y in known], look) for known, look in points])
    looks = _looks(printed, form, evaluation)
    for name, look in looks.items():
        own = printed[printed.model == name].sort_values("length")
        panel.plot(own.length, own.number, **look)
    _axes(panel, evaluation, form, printed, shown.models)
    _legend(drawn, shown, looks)
    return drawn


def _looks(printed: pd.DataFrame, form: Form, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """How each printed model is drawn: hollow, in the colour and with the marker of the model here that it names."""
    known = {model.label: model for model in evaluation.everyone}
    looks = {}
    for rank, name in enumerate(dict.fromkeys(printed.model)):
        here = known.get(form.same.get(name, ""))
        line = style.line(here) if here else {"color": style.FLOOR, "marker": MARKERS[rank % len(MARKERS)]}
        looks[name] = line | HOLLOW | {"markeredgecolor": line["color"], "markeredgewidth": 1.1}
    return looks


def _axes(panel: Axes, evaluation: Evaluation, form: Form, printed: pd.DataFrame, models: Sequence[Model]) -> None:
    panel.set(xscale=form.x_scale, yscale=form.y_scale, ylabel=_unit(form))
    ours = sorted({x for model in models for x, _ in _points(evaluation, model, form)})
    ticks = sorted({*ours, *printed.length})
    plain_ticks(panel, ticks)
    labels = [_tick(x, x in ours, evaluation, form, printed) for x in ticks]
    panel.set_xticks(ticks, labels, rotation=60 if len(ticks) > 8 else 0, fontsize=7.5)
    panel.minorticks_off()
    axis = "length x batch" if form.by_batch else "sequence length"
    protocol = f"their protocol: {published.protocol(form.printed.table)}"
    panel.set_xlabel(f"{axis}\n{_ours(evaluation)}\n{_theirs(printed)}\n{protocol}", fontsize=7.5)


def _tick(x: int, is_ours: bool, evaluation: Evaluation, form: Form, printed: pd.DataFrame) -> str:
    """A length as papers write it; with the batch where the paper's axis has it."""
    text = f"{x // 1024**2}M" if x % 1024**2 == 0 else f"{x // 1024}K" if x % 1024 == 0 else f"{x}"
    if not form.by_batch:
        return text
    theirs = printed[printed.length == x].setting.str.extract(r"x(\d+)\b", expand=False).dropna()
    batches = [str(max(1, evaluation.settings.get("batch_tokens", x) // x))] if is_ours else []
    return text + "".join(f"\nx {batch}" for batch in dict.fromkeys([*batches, *theirs]))


def _unit(form: Form) -> str:
    return f"10³ {metrics.words(form.metric)}" if form.metric.endswith(THOUSANDS) else metrics.axis(form.metric)


def _ours(evaluation: Evaluation) -> str:
    """Our scale and protocol, as the axis carries them."""
    setup, rows = evaluation.setup, evaluation.measured()
    size = ", ".join(f"{name} {setup['size'][name]}" for name in ("width", "depth", "heads"))
    budget = setup["budget"]
    tokens = f", {budget['steps'] * budget['batch_tokens']:,} tokens trained" if budget else f", {setup['device']}"
    protocols = ", ".join(sorted({row["protocol"] for row in rows if row["family"] != FLOOR_FAMILY}))
    return f"filled, measured here: {size}{tokens}, protocol {protocols}"


def _theirs(printed: pd.DataFrame) -> str:
    """What the paper states of the scale of its numbers."""
    papers = "; ".join(dict.fromkeys(f"{row.paper}, {row.table}" for row in printed.itertuples()))
    stated = [
        f"{what} {', '.join(found) if found else 'not stated'}"
        for what, found in (
            ("parameters", [text for text in dict.fromkeys(printed.params) if text and len(text) < 16]),
            ("tokens", [text for text in dict.fromkeys(printed.tokens) if text and len(text) < 16]),
        )
    ]
    return f"hollow, printed elsewhere: {papers}; {'; '.join(stated)}"


def _legend(drawn: Figure, shown: Cast, looks: dict[str, dict[str, Any]]) -> None:
    """Who was measured here, and below them whom the paper prints."""
    entries: list[LegendEntry] = [
        ("measured here", None),
        *((model.title, shown.line(model)) for model in shown.models),
    ]
    place(drawn, [*entries, ("printed elsewhere", None), *looks.items()])
