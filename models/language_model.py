"""Registered models by name: `build(name, size)`, on equal terms with the reference Transformer.

Handed on from here is what a script needs besides: sizes, matches, the shell, and what a model and a state weigh.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from models import registry
from models.matching.counts import parameter_count, state_bytes
from models.matching.match import PARAMETERS, Match
from models.matching.solver import solve
from models.ops.providers import check_provider
from models.shell.model import Block, LanguageModel, Size, assemble, unsolved
from schema.settings import settings as settings_of
from schema.settings_check import check_settings as hold_settings

__all__ = (
    "Block", "LanguageModel", "Match", "Size", "build", "check_settings", "parameter_count", "seeded", "solve", "state_bytes",
)  # fmt: skip


def build(name: str, size: Size, *, match: Match | Literal[False] = PARAMETERS, **settings: Any) -> nn.Module:
    """Build a registered model on equal terms with the reference Transformer at this size: with its parameters.

    `match=Match("state", state_bytes=65_536)` or `Match("flops", flops_length=512)` solves for those instead, in models that can
    come within the tolerance; the others keep their parameter match. `match=False` keeps the reference's depth and SwiGLU
    width. `settings` are the class's own. Raises UnknownModel; ValueError for an unknown or ill-typed setting (with the
    signature), or for a size at which parameters cannot be matched (NoMatch).
    """
    entry = registry.entry(name)
    check_settings(entry, settings)
    if match is not False and not isinstance(match, Match):
        raise ValueError(f"match takes a Match (Match('parameters'), 'state' or 'flops') or False, not {match!r}.")
    shape = solve(entry, size, settings, match) if match else unsolved(entry, size, settings)
    return assemble(entry, size, shape, settings)


def check_settings(entry: registry.Entry, settings: dict[str, Any]) -> None:
    """Raise ValueError, printing the signature, for a setting that the class does not know or that has the wrong type."""
    check_provider(settings.get("provider", "auto"))
    hold_settings("Model", entry.name, settings, settings_of(entry.cls))


def seeded(name: str, size: Size, seed: int, **settings: Any) -> nn.Module:
    """`build` with torch's global generator seeded first, and restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, size, **settings)
