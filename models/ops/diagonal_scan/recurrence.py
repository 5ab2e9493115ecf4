"""The law of a diagonal state: every number forgets by itself and takes what it is given.

    h_t = a_t h_{t-1} + x_t

Letters: b batch, t time, d numbers of the state. a is the decay itself, not its logarithm, |a| <= 1; it comes for every token or
once for all of them. Real or complex. A complex state is carried as pairs of real numbers, so that whoever holds states
(caches, files, the family check) meets real tensors only. The fast form beside it has this signature and is held to this loop.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(a: Tensor, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h [b, t, d] and the state after the last token, token by token in the dtype that the inputs promote to.

    Shapes: a [b, t, d], or [d] for a decay that all tokens share; x [b, t, d]; state [b, d], of a complex recurrence
    [b, d, 2] (real and imaginary parts), None for zeros.
    """
    kind = torch.promote_types(a.dtype, x.dtype)
    a, x, h = a.to(kind), x.to(kind), unpacked(state, x, kind)
    hs = []
    for t in range(x.shape[1]):
        h = (a if a.dim() == 1 else a[:, t]) * h + x[:, t]
        hs.append(h)
    return torch.stack(hs, dim=1) if hs else x, packed(h)


def unpacked(state: Tensor | None, x: Tensor, kind: torch.dtype) -> Tensor:
    """The state [b, d] in the dtype `kind`; zeros if there is none."""
    if state is None:
        return x.new_zeros(x.shape[0], x.shape[2], dtype=kind)
    if kind.is_complex:
        state = torch.view_as_complex(state.to(kind.to_real()).contiguous())
    return state.to(kind)


def packed(h: Tensor) -> Tensor:
    """What is handed out as the state: complex numbers as pairs."""
    return torch.view_as_real(h) if h.is_complex() else h
