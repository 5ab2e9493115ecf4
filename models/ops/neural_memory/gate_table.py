"""The coefficients that tokens' writes have in a neural memory, from its gates: two running scans over the rows of a block.

    P[t] = eta_t P[t-1] + theta_t 1_t,   A[t] = keep_t A[t-1] + P[t]

A[t, s] is what token s's write has in the memory after token t, P[t, s] what it has in the surprise; the rate is in both. All
terms are sums of products in [0, 1]: the scans neither cancel nor divide, unlike differences of cumulated logarithms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand


def coefficients(momentum: Tensor, keep: Tensor, last: int, rate: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The table A of gates in blocks [n, ..., size], and the rows (A, P) of each block's end; `rate` None stands for 1.

    A is [n, ..., size + 1, size + 2]: row 0 is the block's start, so that row t - 1 reads before token t writes; the columns are
    the memory before the block, the surprise before it, and each token's write. The end rows, [n, ..., 2, size + 2], are the
    last, or row `last` in the last block.
    """
    return _Scans.apply(momentum, keep, torch.ones_like(momentum) if rate is None else rate, last)


class _Scans(torch.autograd.Function):
    """The scans and their backward; blocks lie innermost, so that each step is one long vector."""

    @staticmethod
    def forward(ctx: Any, momentum: Tensor, keep: Tensor, rate: Tensor, last: int) -> tuple[Tensor, Tensor]:
        lead, size = momentum.shape[:-1], momentum.shape[-1]
        eta, gamma, theta = (_innermost(x, size) for x in (momentum, keep, rate))
        a, p = (eta.new_zeros(size + 1, size + 2, eta.shape[1]) for _ in range(2))
        a[0, 0] = 1
        p[0, 1] = 1
        p[1:, 2:].diagonal(0, 0, 1).copy_(theta.T)
        for t in range(1, size + 1):
            seen = slice(0, t + 2)  # later tokens have written nothing
            p[t, seen].addcmul_(p[t - 1, seen], eta[t - 1])
            torch.addcmul(p[t, seen], a[t - 1, seen], gamma[t - 1], out=a[t, seen])
        ends = torch.stack([a[size], p[size]])
        if last != size:
            final = slice(-lead[1:].numel(), None)
            ends[..., final] = torch.stack([a[last, :, final], p[last, :, final]])
        ctx.save_for_backward(eta, gamma, a, p)
        ctx.lead, ctx.last = lead, last
        return _outermost(a, lead), _outermost(ends, lead)

    @staticmethod
    @by_hand
    def backward(ctx: Any, d_table: Tensor, d_ends: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        eta, gamma, a, p = ctx.saved_tensors
        size = eta.shape[0]
        da = _innermost(d_table, a[..., 0].numel()).view_as(a)
        dp = torch.zeros_like(da)
        d_ends = _innermost(d_ends, 2 * (size + 2)).view(2, size + 2, -1)
        if ctx.last != size:
            final = slice(-ctx.lead[1:].numel(), None)
            da[ctx.last, :, final] += d_ends[0, :, final]
            dp[ctx.last, :, final] += d_ends[1, :, final]
            d_ends[..., final] = 0
        da[size] += d_ends[0]
        dp[size] += d_ends[1]
        for t in range(size, 0, -1):
            seen = slice(0, t + 2)
            dp[t, seen] += da[t, seen]
            dp[t - 1, seen].addcmul_(dp[t, seen], eta[t - 1])
            da[t - 1, seen].addcmul_(da[t, seen], gamma[t - 1])
        d_theta = dp[1:, 2:].diagonal(0, 0, 1)
        d_theta = d_theta.clone(memory_format=torch.contiguous_format)
        d_eta, d_gamma = (d[1:].mul_(x[:-1]).sum(1).T for d, x in ((dp, p), (da, a)))
        return *(x.reshape(*ctx.lead, size) for x in (d_eta, d_gamma, d_theta)), None


def _innermost(x: Tensor, size: int) -> Tensor:
    """A copy [size, blocks] of [blocks ..., size ...]."""
    return x.reshape(-1, size).T.clone(memory_format=torch.contiguous_format)


def _outermost(x: Tensor, lead: torch.Size) -> Tensor:
    """[rows, columns, blocks] -> [blocks ..., rows, columns]."""
    return x.view(-1, x.shape[-1]).T.contiguous().view(*lead, *x.shape[:2])
