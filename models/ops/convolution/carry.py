"""The loop over chunks of a linear time-invariant system: `S_{i+1} = keep S_i + w_i`, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def carried(writes: Tensor, keep: Tensor, first: Tensor, order: Iterable[int]) -> Tensor:
    """The state after all chunks; in the place of what a chunk writes comes the state before it.

    Shapes: writes [d, b, m, 2n] of m chunks, which are met in `order`; first [d, b, 2n]; `keep` complex [d, n], where the
    transition is diagonal, or a matrix [d, 2n, 2n]. Backward it is the same loop from the end, with `keep` transposed.
    """
    if not keep.is_complex():
        return _walk(writes, lambda write, state: torch.baddbmm(write, state, keep.mT), first, order)
    numbers, state = as_complex(writes), as_complex(first)
    kept = keep[:, None].expand(state.shape).contiguous()
    state = _walk(numbers, lambda write, state: torch.addcmul(write, state, kept), state, order)
    return torch.view_as_real(state).flatten(-2)


def as_complex(S: Tensor) -> Tensor:
    """The numbers of states, of which the last axis [2n] holds real and imaginary parts in turns, as complex ones [n]."""
    return torch.view_as_complex(S.unflatten(-1, (-1, 2)))


def _walk(writes: Tensor, step: Callable[[Tensor, Tensor], Tensor], state: Tensor, order: Iterable[int]) -> Tensor:
    for i in order:
        after = step(writes[:, :, i], state)
        writes[:, :, i] = state
        state = after
    return state
