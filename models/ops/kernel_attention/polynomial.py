"""Kernels of q . k in chunks: the kernel itself between tokens of a chunk, its features from chunk to chunk; backward by hand.

With P[t,s] = q_t . k_s, K the kernel and L the lower triangle, S the sums before a chunk:

    Y = (K(P) L) V + phi(Q) S,             S' = S + phi(K)^T V
    dP = (dY V^T) L K'(P),                 dQ = dP K + phi'(Q) (dY S^T),        dS = dS' + phi(Q)^T dY
    dV = (K(P) L)^T dY + phi(K) dS',       dK = dP^T Q + phi'(K) (V dS'^T)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.kernel_attention.features import expanded, expanded_back
from models.ops.scan.chunked import cut_heads, joined
from models.ops.scan.decay import plus
from models.ops.scan.hebbian import carry, carry_back

CHUNK = 64


def polynomial(q: Tensor, k: Tensor, v: Tensor, kernel: str, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Reads [b, t, h, v] under a kernel of q . k, and the sums [b, h, features, v] after the last token."""
    batch, time, heads = v.shape[:3]
    if not time:
        return v, sums
    own = [cut_heads(x, min(CHUNK, time)) for x in (q, k, v)]
    y, sums = _Polynomial.apply(*own, sums.flatten(0, 1), kernel)
    return joined(y, batch, time), sums.unflatten(0, (batch, heads))


def _weights(scores: Tensor, kernel: str) -> Tensor:
    """K(P) L; the scores stay as they are."""
    weights = scores.square()
    return (weights.mul_(0.5).add_(scores).add_(1) if kernel == "taylor" else weights).tril_()


class _Polynomial(torch.autograd.Function):
    """`apply(q, k, v, sums, kernel)` -> y [n, m, c, v] and the last sums; q, k [n, m, c, f], v [n, m, c, v], sums [m, F, v]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sums: Tensor, kernel: str):
        scores = q @ k.mT
        states = carry(expanded(k, kernel).mT @ v, None, sums)
        y = plus(_weights(scores, kernel) @ v, expanded(q, kernel), states[:-1])
        ctx.save_for_backward(q, k, v, scores, states)
        ctx.kernel = kernel
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, scores, states = ctx.saved_tensors
        kernel = ctx.kernel
        dstates = carry_back(expanded(q, kernel).mT @ dy, None, dlast)
        dv = plus(_weights(scores, kernel).mT @ dy, expanded(k, kernel), dstates[1:])
        slope = scores + 1 if kernel == "taylor" else 2 * scores
        dscores = (dy @ v.mT).mul_(slope).tril_()
        dq = (dscores @ k).add_(expanded_back(q, kernel, dy @ states[:-1].mT))
        dk = (dscores.mT @ q).add_(expanded_back(k, kernel, v @ dstates[1:].mT))
        return dq, dk, dv, dstates[0], None
