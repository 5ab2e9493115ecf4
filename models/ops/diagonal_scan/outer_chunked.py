"""The diagonal recurrence of outer products, forward and backward written out, a step of all its d * N numbers at a time.

    h_t = (1 - e_t f_t^T) * h_{t-1} + k_t u_t^T,   y_t = h_t^T q_t

Gates and writes are formed step by step, where they stay in the cache. Where a step is small the text is cut into streams that
run in lockstep, as in `models.ops.diagonal_scan.chunked`. States are kept for every BLOCK-th token and computed again on the
way back. With g_t the gradient of h_t and a_t = 1 - e_t f_t^T:

    g_t = q_t dy_t^T + a_{t+1} * g_{t+1},   dq_t = h_t dy_t,   du_t = g_t^T k_t,   dk_t = g_t u_t
    df_t = -(g_t * h_{t-1})^T e_t,   de_t = -(g_t * h_{t-1}) f_t
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.diagonal_scan.chunked import starts

BLOCK = 16
ENOUGH = {"cpu": 1 << 16, "cuda": 1 << 20}  # numbers of a step beyond which more streams gain nothing


def chunked(u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor | None = None):
    """`models.ops.diagonal_scan.recurrence.outer_recurrence` in steps by hand; same shapes.

    Half precision is computed in float32; autocast changes nothing.
    """
    dtype, kind = u.dtype, torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        u, f, k, e, q = (value.to(kind) for value in (u, f, k, e, q))
        state = u.new_zeros(u.shape[0], k.shape[2], u.shape[2]) if state is None else state.to(kind)
        batch, time, width = u.shape
        if not time:
            return u.to(dtype), state
        wanted = min(math.isqrt(time), ENOUGH.get(u.device.type, 1 << 20) // max(1, state.numel()))
        length = -(-time // max(1, wanted))
        count = -(-time // length)
        # Filled places have f = u = 0: they forget nothing and write nothing.
        y, last = _Outer.apply(*(_streams(value, count, length) for value in (u, f, k, e, q)), state)
    y = y.view(length, batch, count, width).permute(1, 2, 0, 3).flatten(1, 2)
    return y[:, :time].to(dtype), last


def _streams(x: Tensor, count: int, length: int) -> Tensor:
    """[b, t, c] -> [length, b * count, c], so that one step of all streams is one contiguous slice."""
    x = F.pad(x, (0, 0, 0, count * length - x.shape[1]))
    return x.unflatten(1, (count, length)).permute(2, 0, 1, 3).flatten(1, 2).contiguous()


def _step(h: Tensor, u: Tensor, f: Tensor, k: Tensor, e: Tensor) -> Tensor:
    """The state [m, N, d] after one token of each of the m streams."""
    return torch.addcmul(h, e[..., None], h * f[:, None], value=-1).addcmul_(k[..., None], u[:, None])


class _Outer(torch.autograd.Function):
    """u, f [l, m, d]; k, e, q [l, m, N]; state [b, N, d], m being b * n -> y [l, m, d] and the last state."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor):
        length, batch = len(u), len(state)
        count = u.shape[1] // batch if batch else 1
        h, whole = state, None
        if count > 1:
            h, whole = k[0, ..., None] * u[0, :, None], _gate(f[0], e[0])
            for i in range(1, length):
                h, whole = _step(h, u[i], f[i], k[i], e[i]), whole.mul_(_gate(f[i], e[i]))
            whole = whole.unflatten(0, (batch, count))
            h = starts(h.view_as(whole), whole, state, range(count))[0].flatten(0, 1)
        y, kept = torch.empty_like(u), []
        for i in range(length):
            if i % BLOCK == 0:
                kept.append(h)
            h = _step(h, u[i], f[i], k[i], e[i])
            torch.bmm(q[i, :, None], h, out=y[i, :, None])
        ctx.save_for_backward(u, f, k, e, q)
        ctx.kept, ctx.whole = kept, whole
        return y, h.unflatten(0, (batch, count))[:, -1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        inputs = u, f, k, e, q = ctx.saved_tensors
        length, count, dy, g = len(u), 1, dy.contiguous(), dlast.clone()
        if ctx.whole is not None:
            count = ctx.whole.shape[1]
            g = torch.zeros_like(ctx.whole).flatten(0, 1)
            for i in range(length - 1, -1, -1):
                g.addcmul_(q[i, ..., None], dy[i, :, None]).mul_(_gate(f[i], e[i]))
            g = starts(g.view_as(ctx.whole), ctx.whole, dlast, range(count - 1, -1, -1))[0].flatten(0, 1)
        found = tuple(torch.empty_like(value) for value in inputs)
        for first in reversed(range(0, length, BLOCK)):
            states = [ctx.kept[first // BLOCK]]
            for i in range(first, min(first + BLOCK, length)):
                states.append(_step(states[-1], u[i], f[i], k[i], e[i]))
            for i in reversed(range(first, min(first + BLOCK, length))):
                at = tuple(value[i] for value in (*inputs, *found))
                g = _step_back(g, dy[i], states[i - first], states[i - first + 1], *at)
        du, df, dk, de, dq = found
        return du, df.neg_(), dk, de.neg_(), dq, g[::count].clone()


def _gate(f: Tensor, e: Tensor) -> Tensor:
    """1 - e f^T [m, N, d]."""
    return torch.addcmul(f.new_ones(()), e[..., None], f[:, None], value=-1)


def _step_back(g, dy, before, after, u, f, k, e, q, du, df, dk, de, dq) -> Tensor:
    """Write one token's gradients (those of f and e with the other sign); g [m, N, d] carried over it.

    `before` and `after` are the states around the token. Sums over d are products of a row with a matrix that is read
    transposed: of the two orders the one for which torch's batched product is fast.
    """
    g.addcmul_(q[..., None], dy[:, None])
    torch.bmm(dy[:, None], after.mT, out=dq[:, None])
    torch.bmm(k[:, None], g, out=du[:, None])
    torch.bmm(u[:, None], g.mT, out=dk[:, None])
    both = g * before
    torch.bmm(e[:, None], both, out=df[:, None])
    torch.bmm(f[:, None], both.mT, out=de[:, None])
    return g.addcmul_(e[..., None], torch.mul(g, f[:, None], out=both), value=-1)
