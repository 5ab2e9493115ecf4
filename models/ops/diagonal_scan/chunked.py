"""The diagonal recurrence without a loop over the text: parallel streams in lockstep, forward and backward written out.

The text is cut into n streams of L tokens, both about the root of its length. All streams run from zero in lockstep, keeping
only their last h and their whole product of a (which may underflow: nothing is divided); a short loop over n joins them; a
second run from the true starts writes h. With g_t the gradient of h_t the backward pass is the same from the end,

    g_t = dh_t + conj(a_{t+1}) g_{t+1},   dx_t = g_t,   da_t = g_t conj(h_{t-1}),   dh_0 = conj(a_1) g_1

and is run on conjugates, so that each step is one fused multiply-add. Streams are views: nothing is copied or filled up, and
the few tokens behind the last whole stream are a loop.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.diagonal_scan.recurrence import packed, unpacked


def chunked(a: Tensor, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.diagonal_scan.recurrence.recurrence` in parallel streams; same shapes.

    Half precision is computed in float32, complex numbers in complex64, both in double width where a or x is; autocast
    changes nothing. A real h comes back in x's dtype, the state as it was computed.
    """
    asked = torch.promote_types(a.dtype, x.dtype)
    kind = torch.promote_types(asked, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        a, x, state = a.to(kind), x.to(kind), unpacked(state, x, kind)
        if not x.shape[1]:
            return x.to(asked), packed(state)
        h, last = _Scan.apply(a, x, state)
    return h.to(asked), packed(last)


@cache
def streams(time: int) -> tuple[int, int]:
    """How many streams, and of how many tokens each: what needs fewest steps, tokens behind the last stream included."""
    root = math.isqrt(time)
    lengths = range(max(1, root // 2), 2 * root + 1)
    length = min(lengths, key=lambda one: 3 * one + 2 * (time // one) + 2 * (time % one))
    return time // length, length


def _steps(x: Tensor, count: int, length: int) -> list[Tensor]:
    """Views [b, count, d] of x [b, t, d]: the first token of every stream, the second, ..; of a constant [d], itself."""
    if x.dim() == 1:
        return [x] * length
    return list(x[:, : count * length].unflatten(1, (count, length)).unbind(2))


def _behind(x: Tensor, done: int, time: int) -> list[Tensor]:
    """Views [b, d] of the tokens behind the last whole stream."""
    return [x] * (time - done) if x.dim() == 1 else list(x[:, done:].unbind(1))


def _starts(last: Tensor, whole: Tensor, first: Tensor, order: range) -> tuple[Tensor, Tensor]:
    """Each stream's true start [b, n, d], and what comes out of the last of them in `order`.

    `last` is what comes out of the streams when begun at zero, `whole` their products of a.
    """
    found = torch.empty_like(last)
    for n in order:
        found[:, n] = first
        first = torch.addcmul(last[:, n], whole if whole.dim() == 1 else whole[:, n], first)
    return found, first


class _Scan(torch.autograd.Function):
    """a [b, t, d] or [d]; x [b, t, d]; state [b, d], all of one dtype -> h [b, t, d] and the last h."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, state: Tensor):
        time = x.shape[1]
        count, length = streams(time)
        h = torch.empty_like(x, memory_format=torch.contiguous_format)
        gates, given, out = (_steps(part, count, length) for part in (a, x, h))
        whole, now = gates[0], state[:, None]
        if count > 1:
            whole, last = gates[0].clone(), given[0].clone()
            for i in range(1, length):
                torch.addcmul(given[i], gates[i], last, out=last)
                whole.mul_(gates[i])
            now, _ = _starts(last, whole, state, range(count))
        for i in range(length):
            torch.addcmul(given[i], gates[i], now, out=out[i])
            now = out[i]
        now, done = now[:, -1], count * length
        for gate, part, own in zip(*(_behind(part, done, time) for part in (a, x, h)), strict=True):
            torch.addcmul(part, gate, now, out=own)
            now = own
        ctx.save_for_backward(a, h, state, whole)
        return h, now.clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dh: Tensor, dlast: Tensor):
        a, h, state, whole = ctx.saved_tensors
        g, now = _gradients(a, whole, dh.conj().resolve_conj(), dlast.conj().resolve_conj())
        da = None
        if ctx.needs_input_grad[0]:
            da = (_constant if a.dim() == 1 else _per_token)(g, h, state).conj_physical_()
        return da, g.conj_physical_(), now.conj_physical()


def _gradients(a: Tensor, whole: Tensor, dh: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """g [b, t, d] and the gradient of the state before the text, from that of the state after it; all conjugated."""
    time = dh.shape[1]
    count, length = streams(time)
    g = torch.empty_like(dh, memory_format=torch.contiguous_format)
    gates, given, out = (_steps(part, count, length) for part in (a, dh, g))
    rest = [_behind(part, count * length, time) for part in (a, dh, g)]
    for gate, part, own in reversed(list(zip(*rest, strict=True))):
        torch.add(part, now, out=own)
        now = gate * own
    arrived = now[:, None]
    if count > 1:
        out_of = given[-1].clone()
        for i in range(length - 2, -1, -1):
            torch.addcmul(given[i], gates[i + 1], out_of, out=out_of)
        arrived, now = _starts(out_of.mul_(gates[0]), whole, now, range(count - 1, -1, -1))
    torch.add(given[-1], arrived, out=out[-1])
    for i in range(length - 2, -1, -1):
        torch.addcmul(given[i], gates[i + 1], out[i + 1], out=out[i])
    if count == 1:
        now = (gates[0] * out[0])[:, 0]
    return g, now


def _per_token(g: Tensor, h: Tensor, state: Tensor) -> Tensor:
    """da [b, t, d]: each token's g times the h before it."""
    da = torch.empty_like(g)
    torch.mul(g[:, 1:], h[:, :-1], out=da[:, 1:])
    torch.mul(g[:, 0], state, out=da[:, 0])
    return da


def _constant(g: Tensor, h: Tensor, state: Tensor) -> Tensor:
    """da [d] of a decay that all tokens share, the sum of what `_per_token` gives: stream by stream, then over all."""
    time = g.shape[1]
    count, length = streams(time)
    slopes, before = _steps(g, count, length), _steps(h, count, length)
    total = torch.empty_like(slopes[0])
    torch.mul(slopes[0][:, 0], state, out=total[:, 0])
    torch.mul(slopes[0][:, 1:], before[-1][:, :-1], out=total[:, 1:])
    for i in range(1, length):
        total.addcmul_(slopes[i], before[i - 1])
    done = count * length
    return total.sum((0, 1)) + (g[:, done:] * h[:, done - 1 : -1]).sum((0, 1))
