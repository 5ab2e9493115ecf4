"""What forgetting per head becomes inside chunks: ratios between places, and how much reaches a chunk's ends.

Every exponent is <= 0, so nothing overflows. The gradient needs none of these tables. The output y_t scales with e^{c_t} and
everything that token s writes with e^{-c_s}; with w_s the right-hand side of what it writes and D_s its gradient,

    dL/dc_t = y_t . dy_t - w_t . D_t,   and the last c of a chunk also takes <S', dS'> of the state behind the chunk.
"""

from __future__ import annotations

from typing import NamedTuple

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
    c = log_forget.cumsum(-1)
    one = c[:1] if fixed else c
    size = c.shape[-1]
    # Added before exp: above the diagonal the exponent is positive and may overflow.
    above = c.new_full((size, size), float("-inf")).triu(1)
    ratio = (one[..., :, None] - one[..., None, :]).add_(above).exp_()
    last = c[..., -1:]
    return Decay(ratio, c.exp()[..., None], (last - c).exp_()[..., None], last.exp()[..., None])


def forget_gradient(reads: Tensor, writes: Tensor, states: Tensor) -> Tensor:
    """dL/d log_forget [.., C] from y_t . dy_t and w_t . D_t [.., C], and <S', dS'> [..]."""
    dc = reads - writes
    dc[..., -1] += states
    return dc.flip(-1).cumsum(-1).flip(-1)


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
