"""Hebbian writing over chunks, forgetting per key channel, with its backward pass by hand.

A chunk's scores are the sum over channels of q_t k_s e^{c_t - c_s}, which is no matrix product of two safe factors: e^{-c}
overflows. So a chunk is halved again and again (as in Yang et al. 2023, arXiv 2312.06635, section 4, with more levels). With
r the c at the end of a first half, its square of scores between second-half queries and first-half keys is

    (q_t e^{c_t - r}) . (k_s e^{r - c_s}),   both exponents <= 0,

down to single tokens; on the diagonal nothing has been forgotten yet. All else is as with forgetting per head. The gradient of
c needs no table, since q_t always stands with e^{c_t} and k_s with e^{-c_s}: dc = q . dq - k . dk, channel by channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.kernels.backward import by_hand
from models.kernels.scan_decay import plus
from models.kernels.scan_hebb import carry, carry_back


class ChannelHebb(torch.autograd.Function):
    """`apply(q, k, v, log_forget, state)` -> y [n, m, c, v] and the last state; c is a power of two.

    Shapes: n chunks of c tokens for m = batch * heads states. q, k, log_forget [n, m, c, k]; v [n, m, c, v]; state [m, k, v].
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor):
        c = log_forget.cumsum(-2)
        last = c[..., -1:, :]
        q_reach, k_fade, keep = q * c.exp(), k * (last - c).exp_(), last.exp().mT
        scores, sides = _scores(q, k, c)
        states = carry(k_fade.mT @ v, keep, state)
        y = plus(scores @ v, q_reach, states[:-1])
        ctx.save_for_backward(q, k, v, c, scores, states, k_fade, q_reach, keep, *(x for side in sides for x in side))
        return y, states[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, k, v, c, scores, states, k_fade, q_reach, keep, *sides = ctx.saved_tensors
        dstates = carry_back(q_reach.mT @ dy, keep, dlast)
        dq = (dy @ states[:-1].mT).mul_(c.exp())
        dk = (v @ dstates[1:].mT).mul_((c[..., -1:, :] - c).exp_())
        dv = plus(scores.mT @ dy, k_fade, dstates[1:])
        _scores_backward(dy @ v.mT, q, k, c, sides, dq, dk)
        dc = (q * dq).addcmul_(k, dk, value=-1)
        dc[..., -1, :] += (states[1:] * dstates[1:]).sum(-1)
        return dq, dk, dv, dc.flip(-2).cumsum(-2).flip(-2), dstates[0]


def _halves(x: Tensor, half: int) -> Tensor:
    """[n, m, c, k] -> [n * m, pairs, 2, half, k]."""
    return x.flatten(0, 1).unflatten(1, (-1, 2, half))


def _squares(scores: Tensor, half: int) -> Tensor:
    """The squares between second and first halves, a view [n * m, half, half, pairs] of scores [n, m, c, c]."""
    cut = scores.flatten(0, 1).unflatten(2, (-1, 2, half)).unflatten(1, (-1, 2, half))
    return cut[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3)


def _levels(size: int) -> list[int]:
    """Half sizes: size / 2, ..., 2, 1."""
    return [1 << bit for bit in reversed(range(size.bit_length() - 1))]


def _factors(c: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """e^{c_t - r} of the second halves and e^{r - c_s} of the first, each [n * m, pairs, half, k]."""
    c = _halves(c, half)
    border = c[:, :, 0, -1:]
    return (c[:, :, 1] - border).exp_(), (border - c[:, :, 0]).exp_()


def _scores(q: Tensor, k: Tensor, c: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Scores [n, m, c, c], and for each level what its squares are products of."""
    size = q.shape[2]
    scores = q.new_zeros(*q.shape[:2], size, size)
    scores.diagonal(dim1=-2, dim2=-1).copy_((q * k).sum(-1))
    sides = []
    for half in _levels(size):
        reads, writes = _factors(c, half)
        reads.mul_(_halves(q, half)[:, :, 1])
        writes.mul_(_halves(k, half)[:, :, 0])
        _squares(scores, half).copy_((reads @ writes.mT).permute(0, 2, 3, 1))
        sides.append((reads, writes))
    return scores, sides


def _scores_backward(dscores: Tensor, q: Tensor, k: Tensor, c: Tensor, sides: list[Tensor], dq: Tensor, dk: Tensor):
    """Add the scores' share to dq and dk, in place; `sides` as `_scores` gave them, flat."""
    own = dscores.diagonal(dim1=-2, dim2=-1)[..., None]
    dq.addcmul_(own, k)
    dk.addcmul_(own, q)
    for half, reads, writes in zip(_levels(q.shape[2]), sides[::2], sides[1::2], strict=True):
        square = _squares(dscores, half).permute(0, 3, 1, 2).contiguous()
        reach, fade = _factors(c, half)
        _halves(dq, half)[:, :, 1].addcmul_(square @ writes, reach)
        _halves(dk, half)[:, :, 0].addcmul_(square.mT @ reads, fade)
