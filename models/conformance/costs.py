"""What a registered model costs at a size: parameters, state bytes, and floating-point operations per token.

The counting of a model that is built stands in `models/matching/counts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from models import registry
from models.language_model import build, check_settings, seeded
from models.matching.counts import flops, largest_state, parameter_count, training_flops
from models.matching.match import Match
from models.matching.shapes_only import shapes_only
from models.matching.solver import REFERENCE, candidate, reference_parameters, solve
from models.shell.model import Size
from schema.terms import MatchReport


@dataclass(frozen=True)
class Costs:
    """One model at one size and context.

    `parameters` are those outside the embedding, `state_bytes` the most that one row's state takes over one period,
    `forward` and `training` operations per token, the latter with the backward pass; None where a class says no `flops`.
    """

    parameters: int
    state_bytes: int
    forward: float | None
    training: float | None


def costs(name: str, size: Size, length: int, **settings: Any) -> Costs:
    """The costs of a registered model at a context of `length` tokens; `settings` are what `build` takes.

    Raises ValueError for a length below 1, and what `build` raises.
    """
    if length < 1:
        raise ValueError(f"A context has at least 1 token, not {length}.")
    model = seeded(name, size, 0, **settings)
    found = flops(model, length)
    forward = None if found is None else (found.forward + found.elementwise) / length
    tokens = torch.zeros(1, length + model.period, dtype=torch.long)
    return Costs(parameter_count(model), largest_state(model, tokens, length), forward, training_flops(model, length))


def training_flops_per_token(name: str, size: Size, length: int, **settings: Any) -> float | None:
    """Operations per token of a training step on texts of `length` tokens; None where the model's class says no `flops`."""
    with shapes_only():
        return training_flops(build(name, size, **settings), length)


def match_report(name: str, size: Size, match: Match, **settings: Any) -> MatchReport:
    """What a registered model and what the reference has, matched so: parameters, state bytes, or FLOPs per token."""
    entry, found = registry.entry(name), reference_parameters(size)
    check_settings(entry, settings)
    subject = candidate(entry, size, settings)
    shape = solve(entry, size, settings, match)
    count = subject.parameters(shape)
    if match.by == "flops":
        aim = training_flops_per_token(REFERENCE, size, match.flops_length)
        return MatchReport(count, found, subject.flops(shape, match.flops_length), aim)
    if match.by == "state":
        is_fixed = entry.says("fixed_state", settings, False)
        return MatchReport(count, found, subject.state(shape) if is_fixed else None, match.state_bytes)
    return MatchReport(count, found, count, found)
