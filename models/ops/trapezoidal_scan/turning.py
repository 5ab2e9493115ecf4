"""How far keys and queries turn: the angles of a text."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reduced(angles: Tensor) -> Tensor:
    """Angles in [-pi, pi)."""
    return (angles + math.pi).remainder(2 * math.pi) - math.pi


def angles_of(speed: Tensor, delta: Tensor, angle: Tensor | None) -> Tensor:
    """The angles [b, t, h, a] after each token, in float64 and reduced, from those before the text [b, h, a].

    Shapes: speed [b, t, a], whose tanh is the share of half a turn; delta [b, t, h].
    """
    turns = (math.pi * torch.tanh(speed)[:, :, None] * delta[..., None]).double()
    if angle is not None:
        turns = torch.cat([turns[:, :1] + angle[:, None].double(), turns[:, 1:]], dim=1)
    return reduced(turns.cumsum(1))
