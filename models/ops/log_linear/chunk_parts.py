"""What a chunk of C tokens does to a matrix state, as a linear map of its values V and of the state S before it.

    Y = P V + R S,   S' = M S + W V                     c: log-forgetting from the chunk's start up to a token, itself included

    without a comparison   P[t, s] = e^{c_t - c_s} (q_t . k_s) b_s for s <= t,  R = e^c Q,  W = (e^{c_C - c} b K)^T,  M = e^{c_C}
    with one               T = (I + X)^-1 diag(b),   X[t, s] = b_t e^{c_t - c_s} (k_t . k_s) for s < t, and with P, W as above
                           but for b: P T, W T, R = e^c Q - P T (e^c K), M = e^{c_C} - W T (e^c K)

Column s of P and W is what token s writes, so that it can be weighed by its age.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    """P [.., C, C], R [.., C, k], W [.., k, C], and M [.., 1, 1], or [.., k, k] with a comparison."""

    inside: Tensor
    reach: Tensor
    enter: Tensor
    keep: Tensor

    def kept(self, states: Tensor, place: int | None = None) -> Tensor:
        """M S, of the chunk at `place` if there are many."""
        keep = self.keep if place is None else self.keep[place]
        return keep @ states if keep.shape[-1] > 1 or keep.shape[-1] == states.shape[-2] else keep * states


def parts(q: Tensor, k: Tensor, log_forget: Tensor, rate: Tensor | None, compare: bool) -> Parts:
    """q, k [.., C, k]; log_forget, rate [.., C]."""
    ratio = _ratios(log_forget)
    reach = ratio[..., :, :1] * log_forget[..., :1, None].exp()
    fade, keep = ratio[..., -1, :, None], reach[..., -1:, :]
    inside, enter = (q @ k.mT) * ratio, (k * fade).mT
    if not compare:
        if rate is not None:
            inside, enter = inside * rate[..., None, :], enter * rate[..., None, :]
        return Parts(inside, q * reach, enter, keep)
    rate = torch.ones_like(log_forget) if rate is None else rate
    known = k * reach
    system = (rate[..., None] * ratio * (k @ k.mT)).tril(-1)
    solved = torch.linalg.solve_triangular(system, torch.diag_embed(rate), upper=False, unitriangular=True)
    inside, enter = inside @ solved, enter @ solved
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    return Parts(inside, q * reach - inside @ known, enter, keep * eye - enter @ known)


def _ratios(log_forget: Tensor) -> Tensor:
    """e^{c_t - c_s} for s <= t, else 0 [.., C, C]: sums of what lies between, never differences of cumulated sums."""
    size = log_forget.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_forget.device).tril()
    between = log_forget[..., :, None].expand(*log_forget.shape, size).masked_fill(~lower.tril(-1), 0)
    return between.cumsum(-2).masked_fill(~lower, -torch.inf).exp()
