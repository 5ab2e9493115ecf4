"""Mamba's selective scan without a loop over the text: parallel streams in lockstep, forward and backward written out.

The text is cut into n streams of at most STEPS tokens. A first pass runs all streams from zero and keeps their last states;
a short loop over n joins them with each stream's whole decay `exp(A sum Delta)`; a second pass runs all streams from their
true starts. The state has no matrix-product form (its decay differs for every channel and state number), so each step is a few
vector operations on [b, n, d, N], which stay in the cache. With g_t the gradient of h_t, the backward pass is the same scan
from the end:

    g_t = dy_t C_t + a_{t+1} g_{t+1},   a_t = exp(Delta_t A)
    du_t = g_t B_t,  dB_t = u_t g_t,  dC_t = dy_t h_t,  d(Delta_t A) = g_t h_{t-1} a_t
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand

STEPS = 16  # longest stream: bounds the Python steps; shorter ones only add joints


def streamed(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None):
    """`models.ops.scan.recurrence.selective` in parallel streams; same shapes. Half precision is computed in float32."""
    dtype, kind = x.dtype, torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        x, delta, A, B, C = (value.to(kind) for value in (x, delta, A, B, C))
        if state is None:
            state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
        time = x.shape[1]
        if not time:
            return x.to(dtype), state.to(kind)
        count = -(-time // STEPS)
        length = -(-time // count)
        # Filled places have Delta = 0: they forget nothing and write nothing.
        u, delta, B, C = (_streams(value, count, length) for value in (delta * x, delta, B, C))
        y, state = _Scan.apply(u, delta, A, B, C, state.to(kind))
    y = y.permute(1, 2, 0, 3).flatten(1, 2)[:, :time]
    return y.to(dtype), state


def _streams(x: Tensor, count: int, length: int) -> Tensor:
    """[b, t, c] -> [length, b, count, c], so that one step of all streams is one contiguous slice."""
    x = F.pad(x, (0, 0, 0, count * length - x.shape[1]))
    return x.unflatten(1, (count, length)).permute(2, 0, 1, 3).contiguous()


def _decay(delta: Tensor, A: Tensor) -> Tensor:
    return (delta[..., None] * A).exp_()


def _starts(last: Tensor, whole: Tensor, first: Tensor, order: range) -> tuple[Tensor, Tensor]:
    """Each stream's true start, and the state after all, from the streams' last states when begun at zero."""
    starts = torch.empty_like(last)
    for n in order:
        starts[:, n] = first
        first = torch.addcmul(last[:, n], whole[:, n], first)
    return starts, first


class _Scan(torch.autograd.Function):
    """u, delta [l, b, n, d]; A [d, N]; B, C [l, b, n, N]; state [b, d, N] -> y [l, b, n, d] and the last state."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor):
        length, count = u.shape[0], u.shape[2]
        whole = _decay(delta.sum(0), A)
        decays = [_decay(delta[i], A) for i in range(length)]
        h = state[:, None].clone() if count == 1 else u.new_zeros(*u.shape[1:], A.shape[1])
        if count > 1:
            for i in range(length):
                h.mul_(decays[i]).addcmul_(u[i, ..., None], B[i, :, :, None])
            h, _ = _starts(h, whole, state, range(count))
        states = [h]
        y = torch.empty_like(u)
        for i in range(length):
            h = (h * decays[i]).addcmul_(u[i, ..., None], B[i, :, :, None])
            torch.matmul(h, C[i, ..., None], out=y[i, ..., None])
            states.append(h)
        ctx.save_for_backward(u, delta, A, B, C, whole)
        ctx.states, ctx.decays = states, decays
        return y, h[:, -1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        u, delta, A, B, C, whole = ctx.saved_tensors
        states, decays = ctx.states, ctx.decays
        length, count = u.shape[0], u.shape[2]
        g = _last_gradients(dy.contiguous(), dlast, decays, C, whole, count)
        du, ddelta, dB, dC = (torch.empty_like(value) for value in (u, delta, B, C))
        dA = torch.zeros_like(states[0])
        for i in range(length - 1, -1, -1):
            g.addcmul_(dy[i, ..., None], C[i, :, :, None])
            torch.matmul(dy[i, :, :, None], states[i + 1], out=dC[i, :, :, None])
            torch.matmul(g, B[i, ..., None], out=du[i, ..., None])
            torch.matmul(u[i, :, :, None], g, out=dB[i, :, :, None])
            g.mul_(decays[i])
            exponent = g * states[i]
            dA.addcmul_(exponent, delta[i, ..., None])
            ddelta[i] = (exponent.mul_(A)).sum(-1)
        return du, ddelta, dA.sum((0, 1)), dB, dC, g[:, 0].clone()


def _last_gradients(dy, dlast, decays, C, whole, count) -> Tensor:
    """The gradient that arrives at the end of each stream from the streams after it, [b, n, d, N]."""
    if count == 1:
        return dlast[:, None].clone()
    g = torch.zeros_like(whole)
    for i in range(len(decays) - 1, -1, -1):
        g.addcmul_(dy[i, ..., None], C[i, :, :, None]).mul_(decays[i])
    return _starts(g, whole, dlast, range(count - 1, -1, -1))[0]
