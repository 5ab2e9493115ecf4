"""A claim of a plan: an ordering of two models that a paper states, what it is held to, and its control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from results.plans.toml_reader import PlanError, TableReader
from results.rows import metrics
from schema import shortened, suggestion


@dataclass(frozen=True)
class Claim:
    """One [[claims]] table; `better`, `worse` and `control` are names as tables show them.

    `margin`, in the metric's own unit (shares from 0 to 1), is how near two means count as level; `control` is the better model
    with what the claim is about taken out, or the worse with it put in.
    """

    text: str
    source: str
    better: str
    worse: str
    task: str
    metric: str
    where: dict[str, Any] = field(default_factory=dict)
    parameters: float | None = None  # of the paper's models
    tokens: float | None = None  # that they were trained on
    protocol: str = ""
    margin: float | None = None  # without one, level cannot be said
    control: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the claim names, its control last."""
        return tuple(dict.fromkeys(filter(None, (self.better, self.worse, self.control))))


def read_claim(table: dict[str, Any], reader: TableReader) -> Claim:
    """One [[claims]] table; raises PlanError."""
    where, texts = "[[claims]] ", ("text", "source", "better", "worse", "task", "metric")
    reader.refuse_unknown(table, (*texts, "where", "parameters", "tokens", "protocol", "margin", "control"), where)
    claim = Claim(
        **{name: reader.take(table, name, str, where=where) for name in texts},
        where=reader.take_values(table, "where", where),
        parameters=reader.take(table, "parameters", float, None, where),
        tokens=reader.take(table, "tokens", float, None, where),
        protocol=reader.take(table, "protocol", str, where=where) if "protocol" in table else "",
        margin=reader.take(table, "margin", float, None, where),
        control=reader.take(table, "control", str, where=where) if "control" in table else "",
    )
    problems = [
        (claim.better == claim.worse, "better and worse name the same model"),
        (claim.control == claim.better, "control and better name the same model"),
        (
            claim.margin is not None and not 0 < claim.margin < math.inf,
            f"margin must be a number above 0, not {claim.margin}",
        ),
        (
            not metrics.is_ranked(claim.metric),
            f"no metric {shortened(claim.metric)} is known of which one way is better"
            f"{suggestion(claim.metric, metrics.ranked())}; a report's tables name them, as accuracy or bits_per_byte",
        ),
        (
            any(n is not None and not n > 0 for n in (claim.parameters, claim.tokens)),
            "parameters and tokens must be above 0",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise PlanError(f"{reader.source}: {where}{claim.text!r}: {message}.")
    if claim.margin is not None and metrics.is_accuracy(claim.metric) and claim.margin >= 1:
        raise PlanError(f"{reader.source}: {where}{claim.text!r}: margin is a share below 1; 5 points are 0.05.")
    return claim


def without_control(claims: Sequence[Claim]) -> str:
    """Which of a plan's claims have no control, in a sentence; "" where each has one."""
    without = [claim.text for claim in claims if not claim.control]
    if not without:
        return ""
    verb = "has" if len(without) == 1 else "have"
    return f"{len(without)} of {len(claims)} claims {verb} no control: {'; '.join(without)}"
