"""What forgetting per head becomes inside chunks: ratios between places, and how much reaches a chunk's ends.

Every exponent is a sum of log-forgettings, never a difference of two cumulated ones: behind a closed gate (-100, or -inf) such
a difference has lost its digits, or is no number. So a chunk is halved again and again; between a token s of a first half and a
token t of the second, e^{c_t - c_s} is what remains from s to the border times what remains from the border to t. Every exponent
is <= 0, so nothing overflows.

The gradient needs none of these tables. The output y_t scales with e^{c_t} and
everything that token s writes with e^{-c_s}; with w_s the right-hand side of what it writes and D_s its gradient,

    dL/dc_t = y_t . dy_t - w_t . D_t,   and the last c of a chunk also takes <S', dS'> of the state behind the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Decay(NamedTuple):
    """Factors of chunks of C tokens, log-forgetting [.., C]; all None where nothing is forgotten."""

    ratio: Tensor | None  # [.., C, C]: e^{c_t - c_s} for s <= t, else 0; one chunk's for all where forgetting is fixed
    reach: Tensor | None  # [.., C, 1]: e^{c_t}, from the state before the chunk to token t
    fade: Tensor | None  # [.., C, 1]: e^{c_C - c_s}, from token s to the state after the chunk
    keep: Tensor | None  # [.., 1, 1]: e^{c_C}, from state to state


def decay(log_forget: Tensor | None, fixed: bool) -> Decay:
    """`fixed`: every chunk along the first axis forgets alike, but for zeros that fill the last one up."""
    if log_forget is None:
        return Decay(None, None, None, None)
    upto = log_forget.cumsum(-1)[..., None]
    behind = F.pad(log_forget[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)[..., None]
    ratio = _ratios(log_forget[:1] if fixed else log_forget)
    return Decay(ratio, upto.exp(), behind.exp_(), upto[..., -1:, :].exp())


def _ratios(log_forget: Tensor) -> Tensor:
    """e^{c_t - c_s} for s <= t, else 0, [.., C, C]."""
    size = log_forget.shape[-1]
    whole = 1 << (size - 1).bit_length()
    upto = F.pad(log_forget, (0, whole - size)).clone()[..., None]
    table = upto.new_zeros(*log_forget.shape[:-1], whole, whole)
    table.diagonal(dim1=-2, dim2=-1).fill_(1)
    for half, *sums in halves(upto, torch.zeros_like(upto)):
        reach, fade = (x.exp()[..., 0].transpose(-1, -2) for x in sums)
        torch.mul(reach[..., :, None, :], fade[..., None, :, :], out=squares(table, half))
    return table[..., :size, :size]


def halves(upto: Tensor, behind: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """From single tokens up to half a chunk: the size of a half, and for each pair of halves two sums [.., pairs, half, k].

    The first is that of log-forgetting from the border to each token of the second half, itself included; the other that from
    behind each token of the first half to the border. Given are [.., C, k], C a power of two: `upto` holds log-forgetting and
    `behind` zeros; at the end they hold, in place, the sums of the whole chunk up to each token and behind it.
    """
    half = 1
    while half < upto.shape[-2]:
        (first, second), (rest, _) = (x.unflatten(-2, (-1, 2, half)).unbind(-3) for x in (upto, behind))
        yield half, second, rest
        rest += second[..., -1:, :]
        second += first[..., -1:, :]
        half *= 2


def squares(table: Tensor, half: int) -> Tensor:
    """The squares between second and first halves, a view [.., half, half, pairs] of a table [.., C, C]."""
    cut = table.unflatten(-1, (-1, 2, half)).unflatten(-4, (-1, 2, half))
    return cut[..., :, 1, :, :, 0, :].diagonal(dim1=-4, dim2=-2)


def forget_gradient(reads: Tensor, writes: Tensor, states: Tensor, log_forget: Tensor) -> Tensor:
    """dL/d log_forget [.., C] from y_t . dy_t and w_t . D_t [.., C], and <S', dS'> [..]; 0 where a gate is closed."""
    dc = reads - writes
    dc[..., -1] += states
    return dc.flip(-1).cumsum(-1).flip(-1).masked_fill_(closed(log_forget), 0)


def closed(log_forget: Tensor) -> Tensor:
    """Where a gate lets nothing through: the gradient there is the gate times something, not what rounding leaves of sums."""
    return log_forget < math.log(torch.finfo(log_forget.dtype).tiny)


def times(x: Tensor, factor: Tensor | None) -> Tensor:
    """`x * factor`, where None stands for 1."""
    return x if factor is None else x * factor


def ratioed(scores: Tensor, ratio: Tensor | None) -> Tensor:
    """Scores [n, m, C, C] times the ratios, in place; zero above the diagonal."""
    return scores.tril_() if ratio is None else scores.mul_(ratio)


def plus(sum_: Tensor, a: Tensor, b: Tensor, factor: Tensor | None = None) -> Tensor:
    """`sum_ + factor * (a @ b)` in place, batched over the first two axes; None stands for 1."""
    if factor is not None:
        return sum_.addcmul_(a @ b, factor)
    return sum_.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1)).view_as(sum_)
