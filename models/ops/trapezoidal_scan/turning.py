"""How keys and queries turn: the angles of a text, and rotations of neighbouring pairs."""

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


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [.., N] with the pairs (x_{2j}, x_{2j+1}) turned by angles j = 0 .. a - 1, the rest as it is.

    The first numbers of all pairs come first, then the second ones: queries and keys are products in any common order.
    """
    count = 2 * cos.shape[-1]
    first, second = x[..., 0:count:2], x[..., 1:count:2]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, x[..., count:]], dim=-1)
