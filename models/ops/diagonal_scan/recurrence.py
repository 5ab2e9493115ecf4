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


def outer_recurrence(u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor | None = None):
    """A diagonal recurrence over d * N numbers whose gates and writes are outer products: y [b, t, d] and the last state.

        h_t = (1 - e_t f_t^T) * h_{t-1} + k_t u_t^T,   y_t = h_t^T q_t,   0 <= e f <= 1

    Shapes: u, f [b, t, d]; k, e, q [b, t, N]; state [b, N, d], None for zeros.
    """
    h = u.new_zeros(u.shape[0], k.shape[2], u.shape[2]) if state is None else state.to(u.dtype)
    ys = []
    for t in range(u.shape[1]):
        h = (1 - e[:, t, :, None] * f[:, t, None]) * h + k[:, t, :, None] * u[:, t, None]
        ys.append(torch.einsum("bnd,bn->bd", h, q[:, t]))
    return torch.stack(ys, dim=1) if ys else u, h


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
