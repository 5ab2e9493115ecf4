"""Large-chunk test-time training by chunks: a few matrix products for every piece of a text that lies in one chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.fast_weights.recurrence import State, Weights, ascent, first_state, learned, network


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rates: Tensor,
    momentum: Tensor | None,
    weights: Weights,
    chunk: int,
    muon: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.fast_weights.recurrence.recurrence` by chunks; same shapes. Half precision is computed in float32."""
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, rates = (x.to(kind).transpose(1, 2) for x in (q, k, v, rates))
        moves = None if momentum is None else momentum.to(kind).transpose(1, 2)
        state = first_state(q.transpose(1, 2), weights) if state is None else _as(state, kind)
        ys, start, time = [], 0, q.shape[2]
        while start < time:
            own, before, added, moving, place = state
            stop = min(time, start + chunk - place % chunk)
            piece = slice(start, stop)
            ys.append(network(q[:, :, piece], own))
            gradient = ascent(k[:, :, piece], v[:, :, piece], rates[:, :, piece], own)
            added = tuple(a + g for a, g in zip(added, gradient, strict=True))
            moving = moving if moves is None else moving + moves[:, :, piece].sum(-1)
            state = own, before, added, moving, place + stop - start
            if state[-1] % chunk == 0:
                state = learned(state, weights, chunk, muon)
            start = stop
        y = torch.cat(ys, 2) if ys else v
    return y.transpose(1, 2).to(dtype), state


def _as(state: State, kind: torch.dtype) -> State:
    own, before, added, moving, place = state
    own, before, added = (tuple(w.to(kind) for w in group) for group in (own, before, added))
    return own, before, added, moving.to(kind), place
