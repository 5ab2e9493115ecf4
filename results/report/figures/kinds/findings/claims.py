"""The figure of a comparison's claims: how far apart the two models of each lie, and on which side of zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.plans.method.claims import Claim
from results.report.evaluations import Model
from results.report.figures import artists, canvas, frame, style
from results.report.figures.kinds import ticks
from results.report.figures.words import Word, Words, wrapped
from results.report.findings import grounds
from results.report.findings.claims import LEVEL, NOT_REPRODUCED, OPPOSITE, REPRODUCED, SAME, UNDECIDED, ClaimVerdict
from results.rows import metrics

NAME, TITLE = "claims", "claims: how far apart the two models of each lie"
FEWEST = 2  # claims in one unit that make a figure
ROW = 0.3  # inches for the two lines of a claim's label
SHORT = {
    SAME: "as claimed",
    REPRODUCED: "reproduced",
    OPPOSITE: "opposite",
    NOT_REPRODUCED: "not reproduced",
    LEVEL: "level",
    UNDECIDED: "undecided",
}  # what is not measured is not drawn
OPEN = {"marker": "o", "color": "white", "edgecolors": style.FLOOR, "linewidths": 1.2, "s": 40, "zorder": 3}
MARGIN = {"color": "#dedede", "linewidth": 11, "zorder": 0.8}


class Effect(NamedTuple):
    """A claim's difference in the unit of its figure; what was claimed is positive."""

    verdict: ClaimVerdict
    mean: float
    low: float | None
    high: float | None
    margin: float | None
    winner: Model | None  # who does better, where that is decided


def in_one_unit(verdicts: Sequence[ClaimVerdict]) -> list[Effect]:
    """The tested claims that share the most common unit (points of shares, or one metric's own); none for fewer than two."""
    units: dict[str, list[Effect]] = {}
    for one in verdicts:
        if one.evidence is not None:
            units.setdefault(_unit(one.claim), []).append(_effect(one))
    most = max(units.values(), key=len, default=[])
    return most if len(most) >= FEWEST else []


def figure(verdicts: Sequence[ClaimVerdict]) -> Figure:
    """A row for each claim: its difference with interval, the margin of level, and the verdict.

    A decided claim has the marker of the model that does better; one that is level or undecided is hollow.
    """
    effects = in_one_unit(verdicts)
    drawn = canvas.figure(0.5 + ROW * len(effects))
    canvas.title(drawn, TITLE, _note(effects, len(verdicts)))
    panel = canvas.panel(drawn)
    frame.of(panel).grid = "x"
    _marks(panel, effects)
    panel.axvline(0.0, color=style.INK, linewidth=0.9, zorder=1.1)
    looks = {"ha": "left", "dx": 7, "size": frame.TICK}
    inks = [style.FLOOR if one.winner is None else style.text_colour(one.winner) for one in effects]
    said = [
        Word(SHORT[one.verdict.verdict], 1.0, y, colour=ink, **looks)
        for y, (one, ink) in enumerate(zip(effects, inks, strict=True))
    ]
    panel.add_artist(Words(said, panel.get_yaxis_transform()))
    ticks.fixed(panel.yaxis, range(len(effects)), _labels([one.verdict.claim for one in effects]))
    frame.of(panel).left_looks = [{}] * len(effects)
    panel.set(xlabel=wrapped(_unit(effects[0].verdict.claim), canvas.width() / 2, frame.LABEL))
    panel.margins(x=0.05)
    panel.set_ylim(len(effects) - 0.4, -0.6)
    return drawn


def _unit(claim: Claim) -> str:
    """What the axis says of a claim's differences."""
    return "better by (points)" if metrics.is_accuracy(claim.metric) else f"better by: {metrics.label(claim.metric)}"


def _effect(one: ClaimVerdict) -> Effect:
    claim, found = one.claim, one.evidence
    gap = found.differences[found.shown(one.verdict != UNDECIDED, one.verdict == LEVEL)]
    mean, *ends, margin = grounds.in_unit(claim.metric, (gap.mean, gap.low, gap.high, claim.margin))
    way = metrics.direction(claim.metric)
    low, high = (None, None) if gap.low is None else sorted(way * end for end in ends)
    winner = {SAME: claim.better, REPRODUCED: claim.better, OPPOSITE: claim.worse, NOT_REPRODUCED: claim.worse}
    model = next((model for model in found.evaluation.models if model.label == winner.get(one.verdict)), None)
    return Effect(one, way * mean, low, high, margin, model)


def _marks(panel: Axes, effects: Sequence[Effect]) -> None:
    """The margins, the intervals and the points, from back to front."""
    margins = [([-one.margin, one.margin], [y, y], MARGIN) for y, one in enumerate(effects) if one.margin]
    colours = [style.FLOOR if one.winner is None else style.colour(one.winner) for one in effects]
    pens = [{"color": colour, "linewidth": 1.8, "zorder": 2} for colour in colours]
    rows = enumerate(zip(effects, pens, strict=True))
    artists.lines(panel, [*margins, *(([e.low, e.high], [y, y], pen) for y, (e, pen) in rows if e.low is not None)])
    for y, one in enumerate(effects):
        artists.scatter(panel, [(one.mean, y)], OPEN if one.winner is None else style.point(one.winner))


def _labels(claims: Sequence[Claim]) -> list[str]:
    """The two models of each claim, and on a second line what it asks where others ask something else."""
    asked = [{"task": claim.task, "metric": metrics.words(claim.metric), **claim.where} for claim in claims]
    keys = dict.fromkeys(key for one in asked for key in one)
    varying = [key for key in keys if len({repr(one.get(key)) for one in asked}) > 1]
    second = [ticks.said({key: one[key] for key in varying if key in one}) for one in asked]
    return [
        f"{c.better} over {c.worse}" + (f"\n{more}" if more else "") for c, more in zip(claims, second, strict=True)
    ]


def _note(effects: Sequence[Effect], claims: int) -> str:
    parts = [
        "right of 0: as claimed; in colour: decided, with the mark of the model that does better; hollow: level or undecided"
    ]
    if any(one.low is not None for one in effects):
        over = {one.verdict.evidence.evaluation.repeat + "s" for one in effects}
        parts.append(f"bars: 95 % confidence interval over {' or '.join(sorted(over))}")
    if any(one.margin for one in effects):
        parts.append("grey: within this margin models count as level")
    if claims > len(effects):
        left = claims - len(effects)
        parts.append(
            f"{left} of {claims} claims {'is' if left == 1 else 'are'} in the table alone: not measured, or in another unit"
        )
    return "; ".join(parts)
