"""The law of Mamba-3's scan (Lahoti, Li, Chen, Wang et al. 2026, arXiv 2603.15569), token by token:

    S_t = e^{g_t} (S_{t-1} + (1 - l_t) d_t k_{t-1} v_{t-1}^T) + l_t d_t k_t v_t^T,   y_t = S_t^T q_t + D v_t
    q_t, k_t turned by Theta_t = Theta_{t-1} + pi tanh(speed_t) d_t,   l = sigmoid(trapezoid)

Letters: b batch, t time, h heads, N key width, v value width, a angles (a <= N / 2). The first token of a text has none before
it. Turned keys hold the first numbers of all pairs first (`turned`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.data_dependent_rotary.recurrence import turned
from models.ops.trapezoidal_scan.turning import angles_of

State = tuple[Tensor, Tensor, Tensor, Tensor]


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias_q: Tensor,
    bias_k: Tensor,
    log_forget: Tensor,
    delta: Tensor,
    trapezoid: Tensor,
    speed: Tensor,
    skip: Tensor,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The law over a text: y [b, t, h, v] in v's dtype, and the state after its last token.

    Shapes: q, k [b, t, h, N], or of one head that all share; bias_q, bias_k [h, N], added to them before they turn; v
    [b, t, h, v]; log_forget g <= 0, delta d and trapezoid [b, t, h]; speed [b, t, a]; skip D [h]. The state is Theta [b, h, a],
    S [b, h, N, v], and the last token's k [b, h, N] and v [b, h, v]; None begins a text.
    """
    dtype, given = v.dtype, (bias_q, bias_k, log_forget, delta, trapezoid, speed, skip)
    q, k, v, (bias_q, bias_k, log_forget, delta, trapezoid, speed, skip) = widened(q, k, v, *given)
    q, k = q + bias_q, k + bias_k
    angle, matrix, last_k, last_v = started(q, v, speed, state)
    ys = []
    for t in range(v.shape[1]):
        angle = angles_of(speed[:, t : t + 1], delta[:, t : t + 1], angle)[:, 0].to(v.dtype)
        cos, sin = angle.cos(), angle.sin()
        own_q, own_k = turned(q[:, t], cos, sin), turned(k[:, t], cos, sin)
        late, now = ((sign * trapezoid[:, t]).sigmoid() * delta[:, t] for sign in (-1, 1))
        matrix = matrix + (late[..., None] * last_k)[..., None] * last_v[:, :, None]
        matrix = log_forget[:, t, :, None, None].exp() * matrix + (now[..., None] * own_k)[..., None] * v[:, t, :, None]
        ys.append(torch.einsum("bhnv,bhn->bhv", matrix, own_q) + skip[:, None] * v[:, t])
        last_k, last_v = own_k, v[:, t]
    y = torch.stack(ys, 1) if ys else v
    return y.to(dtype), (angle, matrix, last_k, last_v)


def widened(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """q, k, v and the rest, all in float32, or in float64 where q or v is."""
    kind = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
    return q.to(kind), k.to(kind), v.to(kind), tuple(x.to(kind) for x in rest)


def started(q: Tensor, v: Tensor, speed: Tensor, state: State | None) -> State:
    """The state that a text begins with, in the dtype of v: zeros where there is none."""
    if state is not None:
        return tuple(x.to(v.dtype) for x in state)
    (batch, _, heads, values), keys = v.shape, q.shape[-1]
    shapes = (speed.shape[-1],), (keys, values), (keys,), (values,)
    return tuple(v.new_zeros(batch, heads, *shape) for shape in shapes)
