"""Hebbian writing over chunks, forgetting per head, with its backward pass by hand.

With P[t,s] = e^{c_t - c_s} (q_t . k_s) for s <= t and S the state before a chunk (Sun et al. 2023, arXiv 2307.08621; Dao and
Gu 2024, arXiv 2405.21060):

    Y = P V + e^c Q S,                          S' = e^{c_C} S + (e^{c_C - c} K)^T V
    dV = P^T dY + e^{c_C - c} K dS',            dS = (e^c Q)^T dY + e^{c_C} dS'
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.scan.decay import decay, forget_gradient, plus, ratioed, times


def carry(writes: Tensor, keep: Tensor | None, first: Tensor) -> Tensor:
    """States before each chunk and after the last [n + 1, ..], from what the chunks write [n, ..] and keep."""
    states = torch.empty(len(writes) + 1, *first.shape, dtype=first.dtype, device=first.device)
    states[0] = first
    for i in range(len(writes)):
        if keep is None:
            torch.add(writes[i], states[i], out=states[i + 1])
        else:
            torch.addcmul(writes[i], states[i], keep[i], out=states[i + 1])
    return states


def carry_back(reads: Tensor, keep: Tensor | None, last: Tensor) -> Tensor:
    """Gradients of all states [n + 1, ..], from those of the chunks' reads [n, ..] and of the last state."""
    states = torch.empty(len(reads) + 1, *last.shape, dtype=last.dtype, device=last.device)
    states[-1] = last
    for i in reversed(range(len(reads))):
        if keep is None:
            torch.add(reads[i], states[i + 1], out=states[i])
        else:
            torch.addcmul(reads[i], states[i + 1], keep[i], out=states[i])
    return states


class Hebb(torch.autograd.Function):
    """`apply(q, k, v, log_forget, state, fixed)` -> y [n, m, c, v] and the last state.

    Shapes: n chunks of c tokens for m = batch * heads states. q, k [n, m, c, k]; v [n, m, c, v]; log_forget [n, m, c] or
    None; state [m, k, v].
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor | None, state: Tensor, fixed: bool):
        factors = decay(log_forget, fixed)
        scores = ratioed(q @ k.mT, factors.ratio)
        states = carry(times(k, factors.fade).mT @ v, factors.keep, state)
        y = plus(scores @ v, q, states[:-1], factors.reach)
        ctx.save_for_backward(q, k, v, log_forget, scores, states, y, *factors)
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, log_forget, scores, states, y, ratio, reach, fade, keep = ctx.saved_tensors
        dstates = carry_back(times(q, reach).mT @ dy, keep, dlast)
        dscores = ratioed(dy @ v.mT, ratio)
        dq = plus(dscores @ k, dy, states[:-1].mT, reach)
        dk = plus(dscores.mT @ q, v, dstates[1:].mT, fade)
        dv = plus(scores.mT @ dy, k, dstates[1:], fade)
        dforget = None
        if ctx.needs_input_grad[3]:
            whole = (states[1:] * dstates[1:]).sum((-2, -1))
            dforget = forget_gradient((y * dy).sum(-1), (v * dv).sum(-1), whole, log_forget)
        return dq, dk, dv, dforget, dstates[0], None


class SharedHebb(torch.autograd.Function):
    """One query and key for all heads (Mamba-2): `apply(q, k, v, log_forget, state)` -> y [n, b, c, h, v], last state.

    Shapes: q, k [n, b, c, k]; v [n, b, c, h, v]; log_forget [n, b, h, c]; state [b, k, h, v]. Products of queries and keys
    are taken once, and the heads' values stand side by side against them; decays stand on the side of the values.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor):
        ratio, reach, fade, keep = decay(log_forget, False)
        reach, fade = reach.transpose(2, 3), fade.transpose(2, 3)  # [n, b, c, h, 1]
        keep = keep.transpose(2, 3)  # [n, b, 1, h, 1]
        shared = q @ k.mT
        inside = (shared[:, :, None] * ratio) @ v.transpose(2, 3)
        states = carry((k.mT @ (v * fade).flatten(3)).view(len(v), *state.shape), keep, state)
        y = (q @ states[:-1].flatten(3)).view_as(v).mul_(reach).add_(inside.transpose(2, 3))
        ctx.save_for_backward(q, k, v, log_forget, shared, ratio, reach, fade, keep, states, y)
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, log_forget, shared, ratio, reach, fade, keep, states, y = ctx.saved_tensors
        reached = (dy * reach).flatten(3)
        dstates = carry_back((q.mT @ reached).view(len(v), *dlast.shape), keep, dlast)
        own_dy = dy.transpose(2, 3).contiguous()
        dshared = (own_dy @ v.transpose(2, 3).mT).mul_(ratio).sum(2)
        inside = (shared[:, :, None] * ratio).mT @ own_dy
        dv = (k @ dstates[1:].flatten(3)).view_as(v).mul_(fade).add_(inside.transpose(2, 3))
        dq = dshared @ k + reached @ states[:-1].flatten(3).mT
        dk = dshared.mT @ q + (v * fade).flatten(3) @ dstates[1:].flatten(3).mT
        whole = (states[1:] * dstates[1:]).sum((2, 4))
        reads, writes = (y * dy).sum(-1).mT, (v * dv).sum(-1).mT
        return dq, dk, dv, forget_gradient(reads, writes, whole, log_forget), dstates[0]
