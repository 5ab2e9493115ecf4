"""Mamba-3's scan as one scan of the matrix state's law.

Token t is written at once with both its weights, l_t d_t and, a step late, (1 - l_{t+1}) d_{t+1}; the later one is taken back
from its own output. The last token of a piece waits in the state for the next one's weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from models.ops.scan.chunked import chunked as chunked_scan
from models.ops.scan.native import LARGEST
from models.ops.trapezoidal_scan.recurrence import State, started, widened
from models.ops.trapezoidal_scan.turning import angles_of, turned


def by(
    scan: Callable,
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
    """The law of `recurrence.py` by a form of the scan; same shapes. Raises what that form raises."""
    dtype = v.dtype
    # What is taken back below must be what was written, or a token hears of the next one: in float32 at least.
    q, k, v, given = widened(q, k, v, bias_q, bias_k, (log_forget, delta, trapezoid, speed, skip))
    log_forget, delta, trapezoid, speed, skip = given
    if not v.shape[1]:
        return v.to(dtype), started(q, v, speed, state)
    now, late = trapezoid.sigmoid() * delta, (-trapezoid).sigmoid() * delta
    angles = angles_of(speed, delta, None if state is None else state[0]).to(v.dtype)
    cos, sin = angles.cos(), angles.sin()
    q, k = turned(q, cos, sin), turned(k, cos, sin)
    matrix = None
    if state is not None:  # what the last token still had to write
        _, matrix, last_k, last_v = (x.to(v.dtype) for x in state)
        matrix = matrix + (late[:, 0, :, None] * last_k)[..., None] * last_v[:, :, None]
    later = F.pad(late[:, 1:], (0, 0, 0, 1))
    y, matrix = scan(q, k, v, log_forget=log_forget, rate=now + later, state=matrix)
    own = skip - later * (q * k).sum(-1)
    y = y + own[..., None] * v
    return y.to(dtype), (angles[:, -1].clone(), matrix, k[:, -1].clone(), v[:, -1].clone())


def chunked(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by the chunked scan."""
    return by(chunked_scan, q, k, v, **named)


def native(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by the compiled scan."""
    from models.ops.scan.native import native as scan

    return by(scan, q, k, v, **named)


def native_is_slower(q: Tensor, k: Tensor, v: Tensor, **_: Tensor | State | None) -> bool:
    """Whether the compiled scan is slower than the chunked one: a state that leaves the first caches."""
    return q.shape[-1] * v.shape[-1] > LARGEST


def fla(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by fla's kernels of a scan with one gate a head."""
    from models.ops.scan.fla import scan

    return by(scan, q, k, v, **named)
