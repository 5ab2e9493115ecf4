"""Hebbian writing over chunks, forgetting per key channel, with its backward pass by hand.

A chunk's scores are the sum over channels of q_t k_s e^{c_t - c_s}, which is no matrix product of two safe factors: e^{-c}
overflows. So a chunk is halved again and again (as in Yang et al. 2023, arXiv 2312.06635, section 4, with more levels). With
r the c at the end of a first half, its square of scores between second-half queries and first-half keys is

    (q_t e^{c_t - r}) . (k_s e^{r - c_s}),   both exponents <= 0,

down to single tokens; on the diagonal nothing has been forgotten yet. Both exponents are sums of log-forgettings from or to the
border (`models/ops/scan/decay.py`), so that no gate is too near 0. All else is as with forgetting per head. The gradient of
c needs no table, since q_t always stands with e^{c_t} and k_s with e^{-c_s}: dc = q . dq - k . dk, channel by channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.scan.decay import closed, halves, plus, squares
from models.ops.scan.hebbian import carry, carry_back


class ChannelHebb(torch.autograd.Function):
    """`apply(q, k, v, log_forget, state)` -> y [n, m, c, v] and the last state; c is a power of two.

    Shapes: n chunks of c tokens for m = batch * heads states. q, k, log_forget [n, m, c, k]; v [n, m, c, v]; state [m, k, v].
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor):
        upto, behind = log_forget.clone(), torch.zeros_like(log_forget)
        scores, sides = _scores(q, k, upto, behind)
        reach = upto.exp_()
        q_reach, k_fade, keep = q * reach, k * behind.exp_(), reach[..., -1:, :].mT
        states = carry(k_fade.mT @ v, keep, state)
        y = plus(scores @ v, q_reach, states[:-1])
        ctx.save_for_backward(
            q, k, v, log_forget, scores, states, k_fade, q_reach, keep, *(x for side in sides for x in side)
        )
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, log_forget, scores, states, k_fade, q_reach, keep, *sides = ctx.saved_tensors
        dy = dy.contiguous()
        dstates = carry_back(q_reach.mT @ dy, keep, dlast)
        upto, behind = log_forget.clone(), torch.zeros_like(log_forget)
        dq, dk = _scores_backward(dy @ v.mT, q, k, upto, behind, sides)
        dq.addcmul_(dy @ states[:-1].mT, upto.exp_())
        dk.addcmul_(v @ dstates[1:].mT, behind.exp_())
        dv = plus(scores.mT @ dy, k_fade, dstates[1:])
        dc = (q * dq).addcmul_(k, dk, value=-1)
        dc[..., -1, :] += (states[1:] * dstates[1:]).sum(-1)
        dforget = dc.flip(-2).cumsum(-2).flip(-2).masked_fill_(closed(log_forget), 0)
        return dq, dk, dv, dforget, dstates[0]


def _halves(x: Tensor, half: int) -> Tensor:
    """[n, m, c, k] -> [n, m, pairs, 2, half, k]."""
    return x.unflatten(-2, (-1, 2, half))


def _scores(q: Tensor, k: Tensor, upto: Tensor, behind: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Scores [n, m, c, c], and for each level what its squares are products of; the sums end as those of whole chunks."""
    size = q.shape[2]
    scores = q.new_zeros(*q.shape[:2], size, size)
    scores.diagonal(dim1=-2, dim2=-1).copy_((q * k).sum(-1))
    sides = []
    for half, reach, fade in halves(upto, behind):
        reads = reach.exp().mul_(_halves(q, half)[..., 1, :, :])
        writes = _halves(k, half)[..., 0, :, :]
        writes = writes.contiguous() if half == 1 else fade.exp().mul_(writes)  # a single token is its pair's border
        squares(scores, half).copy_((reads @ writes.mT).movedim(2, -1))
        sides.append((reads, writes))
    return scores, sides


def _scores_backward(
    dscores: Tensor, q: Tensor, k: Tensor, upto: Tensor, behind: Tensor, sides: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The scores' share of dq and dk; `sides` as `_scores` gave them, flat, and the sums as `_scores` leaves them."""
    own = dscores.diagonal(dim1=-2, dim2=-1)[..., None]
    dq, dk = own * k, own * q
    levels = zip(halves(upto, behind), sides[::2], sides[1::2], strict=True)
    for (half, reach, fade), reads, writes in levels:
        square = squares(dscores, half).movedim(-1, 2).contiguous()
        _halves(dq, half)[..., 1, :, :].addcmul_(square @ writes, reach.exp())
        onto = _halves(dk, half)[..., 0, :, :]
        onto.add_(square.mT @ reads) if half == 1 else onto.addcmul_(square.mT @ reads, fade.exp())
    return dq, dk
