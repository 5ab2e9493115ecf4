"""Mamba-3's scan as one scan of the matrix state's law.

Token t is written at once with both its weights, l_t d_t and, a step late, (1 - l_{t+1}) d_{t+1}; the later one is taken back
from its own output. The last token of a piece waits in the state for the next one's weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.data_dependent_rotary.chunked import chunked as chunked_rotary
from models.ops.scan.chunked import chunked as chunked_scan
from models.ops.trapezoidal_scan.recurrence import State, started, widened


class Forms(NamedTuple):
    """The forms of the two operations that it is made of."""

    scan: Callable
    rotary: Callable = chunked_rotary


def by(
    forms: Forms,
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
    """The law of `recurrence.py` by forms of its parts; same shapes. Raises what those forms raise."""
    dtype = v.dtype
    # What is taken back below must be what was written, or a token hears of the next one: in float32 at least.
    q, k, v, given = widened(q, k, v, bias_q, bias_k, log_forget, delta, trapezoid, speed, skip)
    bias_q, bias_k, log_forget, delta, trapezoid, speed, skip = given
    if not v.shape[1]:
        return v.to(dtype), started(q, v, speed, state)
    now, late = trapezoid.sigmoid() * delta, (-trapezoid).sigmoid() * delta
    angle, matrix, last_k, last_v = (None,) * 4 if state is None else (x.to(v.dtype) for x in state)
    biases, speed = (bias_q, bias_k), math.pi * torch.tanh(speed)
    if q.shape[2] == 1:
        q, k, match, angle = forms.rotary(q[:, :, 0], k[:, :, 0], *biases, speed, delta, angle)
    else:
        q, k, match, angle = _of_own_heads(forms.rotary, q, k, *biases, speed, delta, angle)
    if state is not None:  # what the last token still had to write
        matrix = matrix + (late[:, 0, :, None] * last_k)[..., None] * last_v[:, :, None]
    later = F.pad(late[:, 1:], (0, 0, 0, 1))
    y, matrix = forms.scan(q, k, v, log_forget=log_forget, rate=now + later, state=matrix)
    own = skip - later * match
    y = y + own[..., None] * v
    return y.to(dtype), (angle, matrix, k[:, -1].clone(), v[:, -1].clone())


def _of_own_heads(
    rotary: Callable,
    q: Tensor,
    k: Tensor,
    bias_q: Tensor,
    bias_k: Tensor,
    speed: Tensor,
    delta: Tensor,
    angle: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotary positions of queries and keys that each head has for itself: heads as so many rows of one head."""
    batch, _, heads, keys = q.shape
    rows = [(x + bias).transpose(1, 2).flatten(0, 1) for x, bias in ((q, bias_q), (k, bias_k))]
    none = q.new_zeros(1, keys)
    speed, step = speed.repeat_interleave(heads, 0), delta.transpose(1, 2).flatten(0, 1)[..., None]
    found = rotary(*rows, none, none, speed, step, None if angle is None else angle.flatten(0, 1)[:, None])
    q, k, match = (x[:, :, 0].unflatten(0, (batch, heads)).transpose(1, 2) for x in found[:3])
    return q, k, match, found[3][:, 0].unflatten(0, (batch, heads))


def chunked(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by the chunked scan."""
    return by(Forms(chunked_scan), q, k, v, **named)


def native(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by the compiled scan and compiled rotary positions."""
    from models.ops.data_dependent_rotary.native import native as rotary
    from models.ops.scan.native import native as scan

    return by(Forms(scan, rotary), q, k, v, **named)


def native_is_slower(q: Tensor, k: Tensor, v: Tensor, **_: Tensor | State | None) -> bool:
    """Whether the compiled scan is slower than the chunked one: a large state that is only read."""
    from models.ops.scan.native import LARGEST

    return not torch.is_grad_enabled() and q.shape[-1] * v.shape[-1] > LARGEST


def fla(q: Tensor, k: Tensor, v: Tensor, **named: Tensor | State | None) -> tuple[Tensor, State]:
    """The law by fla's kernels of a scan with one gate a head."""
    from models.ops.scan.fla import scan

    return by(Forms(scan), q, k, v, **named)
