"""The law of data-dependent rotary positions, as Mamba-3 has them (Lahoti et al. 2026, arXiv 2603.15569):

    Theta_t = Theta_{t-1} + speed_t step_t,   q_t = R(Theta_t) (q'_t + bias_q),   k_t = R(Theta_t) (k'_t + bias_k)

Letters: b batch, t time, h heads, n numbers of a query, of which R turns m <= n / 2 pairs (x_{2j}, x_{2j+1}) from the front and
leaves the rest as it is. Queries, keys and speeds are shared by all heads, steps and biases are a head's own. The first numbers
of all pairs come out first, then the second ones: queries and keys are products in any common order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def recurrence(
    q: Tensor,
    k: Tensor,
    query_bias: Tensor,
    key_bias: Tensor,
    speed: Tensor,
    step: Tensor,
    angle: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turned queries and keys [b, t, h, n], their products q . k [b, t, h], and the angles after the last token [b, h, m].

    Shapes: q, k [b, t, n]; query_bias, key_bias [h, n]; speed [b, t, m], in radians a step; step [b, t, h]; angle [b, h, m],
    None for zeros. Angles are summed in float64 and kept within half a turn.
    """
    heads, count = step.shape[2], speed.shape[2]
    now = (q.new_zeros(len(q), heads, count) if angle is None else angle).double()
    qs, ks = [], []
    for t in range(q.shape[1]):
        now = now + (step[:, t, :, None] * speed[:, t, None]).double()
        now = (now + math.pi).remainder(2 * math.pi) - math.pi
        rounded = now.to(q.dtype)
        qs.append(turned(q[:, t, None] + query_bias, rounded.cos(), rounded.sin()))
        ks.append(turned(k[:, t, None] + key_bias, rounded.cos(), rounded.sin()))
    q, k = (torch.stack(rows, 1) if rows else q.new_zeros(len(q), 0, *query_bias.shape) for rows in (qs, ks))
    return q, k, (q * k).sum(-1), now.to(q.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [.., n] with its pairs turned by angles [.., m], whose cosines and sines are given."""
    count = 2 * cos.shape[-1]
    first, second = x[..., 0:count:2], x[..., 1:count:2]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, x[..., count:]], dim=-1)
