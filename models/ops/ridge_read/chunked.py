"""The ridge regression's read for all tokens of a text at once, by conjugate gradients that are made of scans.

A product with the matrix of every token, `H_t^T p_t + l * p_t`, is the Hebbian scan with queries p and *values = keys*. So each
step of conjugate gradients (Hestenes and Stiefel 1952) is one scan over chunks, whose tables and states are computed once:

    M p = ((p k^T) * P) k + e^c p H + l * p,      P[t,s] = e^{c_t - c_s} b_s for s <= t, H the state before a chunk

As many steps as keys have numbers give the solution; a row of few eigenvalues needs fewer and stops by itself. No step is kept
for the backward pass: the gradient of a solution is a solution with the same matrix, and with it as cotangent one plain backward
pass of the product gives all other gradients,

    x = M^-1 q:   dq = M^-1 dx,   the rest from M x, x held fixed, with the cotangent -dq.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.ridge_read.recurrence import STEPS, State, first_state
from models.ops.scan.chunked import cut_heads, joined
from models.ops.scan.decay import decay, plus
from models.ops.scan.hebbian import Hebb, carry

CHUNK = 32
ENOUGH = 8  # times the dtype's rounding: a residual so small beside its right side is none


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor,
    ridge: Tensor,
    steps: int = STEPS,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.ridge_read.recurrence.recurrence` in at most `steps` steps of conjugate gradients; same shapes.

    Half precision is computed in float32, states stay there.
    """
    by = Means(partial(by_conjugate_gradients, steps=steps), _scan)
    return by_chunks(q, k, v, log_forget, rate, ridge, by, state)


def by_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_forget: Tensor,
    rate: Tensor,
    ridge: Tensor,
    by: Means,
    state: State | None,
) -> tuple[Tensor, State]:
    """The law by these means."""
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, log_forget, rate, ridge = (x.to(kind) for x in (q, k, v, log_forget, rate, ridge))
        H, G = first_state(q, v) if state is None else (x.to(kind) for x in state)
        batch, time, heads = v.shape[:3]
        if not time:
            return v.to(dtype), (H, G)
        own = [cut_heads(x, min(CHUNK, time)) for x in (q, k, v, rate, log_forget)]
        q, k, v, rate, log_forget = own
        x, H = Solve.apply(q, k, rate, log_forget, ridge.repeat(batch, 1)[:, None], H.flatten(0, 1), by)
        y, G = by.scan(x, k, v * rate[..., None], log_forget, G.flatten(0, 1))
        state = tuple(one.unflatten(0, (batch, heads)) for one in (H, G))
        return joined(y, batch, time).to(dtype), state


class Systems(NamedTuple):
    """The matrices M of all tokens: k [n, m, c, k]; rate, log_forget [n, m, c]; ridge [m, 1, k]; H before chunks [n, m, k, k]."""

    k: Tensor
    rate: Tensor
    log_forget: Tensor
    ridge: Tensor
    states: Tensor


class Means(NamedTuple):
    """Who computes: `solve(systems, right)` is x with M x = right, `scan(q, k, v, log_forget, state)` the Hebbian scan."""

    solve: Callable[[Systems, Tensor], Tensor]
    scan: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Solve(torch.autograd.Function):
    """`apply(q, k, rate, log_forget, ridge, state, by)` -> x [n, m, c, k] = (H_t + diag(l))^-1 q_t, and the last H.

    Shapes: n chunks of c tokens for m = batch * heads states. q, k [n, m, c, k]; rate, log_forget [n, m, c]; ridge [m, 1, k];
    state [m, k, k], symmetric.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, rate: Tensor, log_forget: Tensor, ridge: Tensor, state: Tensor, by: Means
    ):
        _, _, fade, keep = decay(log_forget, False)
        states = carry((k * fade).mT @ (k * rate[..., None]), keep, state)
        x = by.solve(Systems(k, rate, log_forget, ridge, states[:-1]), q)
        ctx.save_for_backward(x, k, rate, log_forget, ridge, states)
        ctx.by = by
        return x, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dx: Tensor, dlast: Tensor):
        x, k, rate, log_forget, ridge, states = ctx.saved_tensors
        dq = ctx.by.solve(Systems(k, rate, log_forget, ridge, states[:-1]), dx)
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in (k, rate, log_forget, ridge, states[0])]
            k, rate, log_forget, ridge, state = leaves
            held, last = ctx.by.scan(x, k, k * rate[..., None], log_forget, state)
            held = held + ridge * x
        return dq, *torch.autograd.grad((held, last), leaves, (-dq, dlast)), None


def _scan(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return Hebb.apply(q, k, v, log_forget, state, False)


def by_conjugate_gradients(systems: Systems, right: Tensor, steps: int) -> Tensor:
    """x with M x = right [n, m, c, k], in at most `steps` steps."""
    ratio, reach, _, _ = decay(systems.log_forget, False)
    table = ratio.mul_(systems.rate[..., None, :])
    return conjugate_gradients(partial(_product, systems.k, table, reach, systems.states, systems.ridge), right, steps)


def _product(k: Tensor, table: Tensor, reach: Tensor, states: Tensor, ridge: Tensor, p: Tensor) -> Tensor:
    """M p for p [n, m, c, k]."""
    return plus((p @ k.mT).mul_(table) @ k, p, states, reach).addcmul_(p, ridge)


def conjugate_gradients(multiply: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """x with `multiply(x) = right` for a symmetric positive matrix of its own for every row of the last axis.

    A row stops where its residual is rounding, at the latest after `steps` steps.
    """
    x, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    size = residual.square().sum(-1, keepdim=True)
    enough = size * (ENOUGH * torch.finfo(right.dtype).eps) ** 2
    for _ in range(steps):
        is_open = size > enough
        if right.device.type == "cpu" and not is_open.any():
            break
        product = multiply(direction)
        curvature = (direction * product).sum(-1, keepdim=True)
        length = torch.where(is_open, size / torch.where(is_open, curvature, 1), 0)
        x.addcmul_(direction, length)
        residual.addcmul_(product, length, value=-1)
        after = residual.square().sum(-1, keepdim=True)
        direction = torch.addcmul(residual, direction, torch.where(is_open, after / torch.where(is_open, size, 1), 0))
        size = torch.where(is_open, after, size)
    return x
