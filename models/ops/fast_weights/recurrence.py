"""Large-chunk test-time training (Zhang et al. 2025, arXiv 2505.23884): a small gated network learns a text chunk by chunk.

    f(x) = (silu(x W_0) * (x W_2)) W_1                                         y_t = f(q_t) with the weights before t's chunk
    G_i <- sum over the chunk of r_{i,s} d/dW_i (v_s . f(k_s)) + mu G_i        mu the mean of the chunk's momentum
    W_i <- W_i + G_i, or + orthogonal(G_i) (Muon), each column then brought back to its length in the first weights

No token is read with what its own chunk has taught. Letters: b batch, t time, h heads, d width, n hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, ...]  # W_0 [.., d, n], W_1 [.., n, d], W_2 [.., d, n]
# The weights before the open chunk, G of the chunk before it, what its tokens have added to G and the sum of their momentum
# so far (all begin [b, h, ..]), and how many tokens were read.
State = tuple[Weights, Weights, Weights, Tensor, int]

FLOOR = 1e-5  # added to a column's length
# Newton and Schulz's iteration, five steps a X + b (X X^T) X + c (X X^T)^2 X, as the authors' code has them.
POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def recurrence(
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
    """The law token by token: y [b, t, h, d] and the state after the last one.

    Shapes: q, k, v [b, t, h, d]; rates r [b, t, h, 3]; momentum [b, t, h], None for none; the first weights without b.
    """
    if state is None:
        state = first_state(q, weights)
    ys = []
    for t in range(q.shape[1]):
        own, before, added, moving, place = state
        ys.append(network(q[:, t, :, None], own)[:, :, 0])
        gradient = ascent(k[:, t, :, None], v[:, t, :, None], rates[:, t, :, None], own)
        added = tuple(a + g for a, g in zip(added, gradient, strict=True))
        moving = moving if momentum is None else moving + momentum[:, t]
        state = own, before, added, moving, place + 1
        if (place + 1) % chunk == 0:
            state = learned(state, weights, chunk, muon)
    return torch.stack(ys, 1) if ys else v.new_empty(v.shape), state


def first_state(q: Tensor, weights: Weights) -> State:
    """The state before a text of queries q [b, t, h, d]."""
    own = tuple(
        w.to(q.dtype).expand(q.shape[0], *w.shape).clone() for w in weights
    )  # a state is no view of what trains
    zeros = tuple(torch.zeros_like(w) for w in own)
    return own, zeros, zeros, q.new_zeros(q.shape[0], q.shape[2]), 0


def network(x: Tensor, weights: Weights) -> Tensor:
    """f(x) for x [.., c, d]."""
    w0, w1, w2 = weights
    return (F.silu(x @ w0) * (x @ w2)) @ w1


def ascent(k: Tensor, v: Tensor, rates: Tensor, weights: Weights) -> Weights:
    """The sum over c tokens, k and v [.., c, d], of each one's rate (rates [.., c, 3]) times its gradient of v . f(k)."""
    w0, w1, w2 = weights
    r0, r1, r2 = rates.split(1, dim=-1)
    gate, linear = k @ w0, k @ w2
    share = gate.sigmoid()
    silu = gate * share
    hidden = v @ w1.mT
    bend = share + silu * (1 - share)  # silu's derivative
    return (
        k.mT @ (r0 * hidden * linear * bend),
        (r1 * silu * linear).mT @ v,
        k.mT @ (r2 * hidden * silu),
    )


def learned(state: State, first: Weights, chunk: int, muon: bool) -> State:
    """The state behind a chunk that is full: its weights updated and rescaled, nothing added yet."""
    own, before, added, moving, place = state
    share = (moving / chunk)[..., None, None]
    steps = tuple(a + share * g for a, g in zip(added, before, strict=True))
    moved = (w + (orthogonal(g) if muon else g) for w, g in zip(own, steps, strict=True))
    own = tuple(w * (length(one.to(w.dtype)) / (length(w) + FLOOR)) for w, one in zip(moved, first, strict=True))
    return own, steps, tuple(torch.zeros_like(g) for g in steps), torch.zeros_like(moving), place


def length(w: Tensor) -> Tensor:
    """The length of each column, which is what one output reads, [.., 1, out]."""
    return w.norm(dim=-2, keepdim=True)


def orthogonal(g: Tensor) -> Tensor:
    """Nearly the nearest matrix with orthonormal rows or columns: all singular values of g [.., m, n] near 1."""
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in POLYNOMIALS:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT
