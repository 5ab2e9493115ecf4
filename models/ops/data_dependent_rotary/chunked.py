"""Data-dependent rotary positions of a whole text at once, in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.ops.data_dependent_rotary.recurrence import turned


def chunked(
    q: Tensor,
    k: Tensor,
    query_bias: Tensor,
    key_bias: Tensor,
    speed: Tensor,
    step: Tensor,
    angle: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`models.ops.data_dependent_rotary.recurrence.recurrence` of all tokens together; same shapes.

    Half precision is computed in float32, and so returned.
    """
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k, query_bias, key_bias, speed, step = (x.to(kind) for x in (q, k, query_bias, key_bias, speed, step))
        if angle is None:
            angle = q.new_zeros(len(q), step.shape[2], speed.shape[2])
        turns = (speed[:, :, None] * step[..., None]).double()
        turns = torch.cat([turns[:, :1] + angle[:, None].double(), turns[:, 1:]], dim=1)
        angles = ((turns.cumsum(1) + math.pi).remainder(2 * math.pi) - math.pi).to(kind)
        cos, sin = angles.cos(), angles.sin()
        q, k = (turned(x[:, :, None] + bias, cos, sin) for x, bias in ((q, query_bias), (k, key_bias)))
        last = angles[:, -1].clone() if q.shape[1] else angle.to(kind)
        return q, k, (q * k).sum(-1), last
