"""The delta rule over chunks, with its backward pass by hand.

With A[t,s] = b_t e^{c_t - c_s} (k_t . k_s) below the diagonal, T = (I + A)^-1, P the same with queries and the diagonal,
and S the state before a chunk (Yang et al. 2024, arXiv 2406.06484 and 2412.06464):

    E = T b (V - e^c K S),   Y = P E + e^c Q S,   S' = e^{c_C} S + (e^{c_C - c} K)^T E

    dE = P^T dY + e^{c_C - c} K dS',   D = T^T dE,   dA = -D E^T,   dV = b D
    dS = (e^c Q)^T dY + e^{c_C} dS' - (T b e^c K)^T dE

Only E, S and their gradients are walked from chunk to chunk; all else is batched over the chunks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.scan.decay import decay, forget_gradient, plus, ratioed, times
from models.ops.triangular import unit_lower_inverse


class Delta(torch.autograd.Function):
    """`apply(q, k, v, rate, log_forget, state, fixed)` -> y [n, m, c, v] and the last state.

    Shapes: n chunks of c tokens for m = batch * heads states. q, k [n, m, c, k]; v [n, m, c, v]; rate [n, m, c];
    log_forget [n, m, c] or None; state [m, k, v].
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_forget: Tensor | None, state: Tensor, fixed: bool
    ):
        n, m, size, _ = k.shape
        factors = decay(log_forget, fixed)
        rated = k * rate[..., None]
        scores = ratioed(q @ k.mT, factors.ratio)
        inverse = unit_lower_inverse(ratioed(rated @ k.mT, factors.ratio).flatten(0, 1)).view(n, m, size, size)
        errors = inverse @ (v * rate[..., None])
        known = inverse @ times(rated, factors.reach)
        to_state = times(k, factors.fade)
        states = state.new_empty(n + 1, *state.shape)
        states[0] = state
        for i in range(n):
            errors[i].baddbmm_(known[i], states[i], alpha=-1)
            kept = states[i] if factors.keep is None else states[i] * factors.keep[i]
            torch.baddbmm(kept, to_state[i].mT, errors[i], out=states[i + 1])
        y = plus(scores @ errors, times(q, factors.reach), states[:-1])
        ctx.save_for_backward(q, k, v, rate, log_forget, scores, inverse, errors, known, states, y, *factors)
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, rate, log_forget, *kept = ctx.saved_tensors
        scores, inverse, errors, known, states, y, ratio, reach, fade, keep = kept
        derrors = scores.mT @ dy
        dstates = torch.empty_like(states)
        torch.matmul(times(q, reach).mT, dy, out=dstates[:-1])
        dstates[-1] = dlast
        to_state = times(k, fade)
        for i in reversed(range(len(k))):
            after = dstates[i + 1]
            derrors[i].baddbmm_(to_state[i], after)
            dstates[i].add_(after) if keep is None else dstates[i].addcmul_(after, keep[i])
            dstates[i].baddbmm_(known[i].mT, derrors[i], alpha=-1)
        right = inverse.mT @ derrors  # D
        dscores = ratioed(dy @ errors.mT, ratio)
        dinside = ratioed(right @ errors.mT, ratio).tril_(-1)  # -dA / b
        dq = plus(dscores @ k, dy, states[:-1].mT, reach)
        drated = plus(dinside @ k, right, states[:-1].mT, reach).neg_()
        dk = plus(dscores.mT @ q, errors, dstates[1:].mT, fade)
        dk.sub_(dinside.mT @ (k * rate[..., None])).addcmul_(drated, rate[..., None])
        written = (v * right).sum(-1)
        drate = written + (k * drated).sum(-1)
        dforget = None
        if ctx.needs_input_grad[4]:
            whole = (states[1:] * dstates[1:]).sum((-2, -1))
            dforget = forget_gradient((y * dy).sum(-1), written * rate, whole, log_forget)
        return dq, dk, right.mul_(rate[..., None]), drate, dforget, dstates[0], None
