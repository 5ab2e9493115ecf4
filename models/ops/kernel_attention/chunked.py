"""Kernel attention in chunks: products of features are the matrix state's law without a comparison, the chunked scan's.

The exponential kernel under its running maximum is that law with forgetting: with r_t the largest log-feature of a key up to t,
token s writes exp(k_s - r_s), and what stands in the sums is multiplied by exp(r_{t-1} - r_t) <= 1 at token t.
Kernels of q . k have a form of their own (`polynomial.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.ops.kernel_attention.features import SHORT, check_kernel
from models.ops.kernel_attention.polynomial import polynomial
from models.ops.kernel_attention.recurrence import begun, ended
from models.ops.kernel_attention.sums import State, quotient, wide_kind, widened
from models.ops.scan.chunked import chunked as scan


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel: str = "product",
    plus: float = 0.0,
    normalise: bool = True,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.kernel_attention.recurrence.recurrence` in chunks; same shapes."""
    return attended(q, k, v, kernel, plus, normalise, state, scan, polynomial)


def attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: str,
    plus: float,
    normalise: bool,
    state: State | None,
    summing: Callable,
    short: Callable,
) -> tuple[Tensor, State]:
    """Kernel attention by a form of the matrix state's law, `summing`, and one of kernels of q . k, `short`."""
    check_kernel(kernel, plus)
    dtype, kind = v.dtype, wide_kind(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = q.to(kind), k.to(kind), widened(v.to(kind), normalise)
        if kernel == "exponential":
            read, scale, after = stabilised(q, k, v, state, summing)
            y = quotient(read, 0.0) if normalise else read * scale[..., None].exp()
            return y.to(dtype), after
        sums, most, tokens = begun(state, q, v, kernel)
        read, sums = short(q, k, v, kernel, sums) if kernel in SHORT else summing(q, k, v, state=sums)
        y = quotient(read, plus) if normalise else read
    return y.to(dtype), ended(sums, most, tokens + q.shape[1])


def stabilised(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, summing: Callable = scan
) -> tuple[Tensor, Tensor, State]:
    """Reads of the exponential kernel's sums [b, t, h, v], the logarithms [b, t, h] that they are to be scaled by, the state.

    q and k are log-features; v is given as it is written.
    """
    sums, most, tokens = begun(state, q, v, "exponential")
    shift = q.detach().amax(-1)
    if not q.shape[1]:
        return v, shift, ended(sums, most, tokens)
    largest = torch.maximum(k.detach().amax(-1).cummax(1).values, most[:, None])
    before = torch.cat([(most if tokens else largest[:, 0])[:, None], largest[:, :-1]], 1)
    read, sums = summing(
        (q - shift[..., None]).exp(),
        (k - largest[..., None]).exp(),
        v,
        log_forget=before - largest,
        state=sums,
    )
    return read, shift + largest, ended(sums, largest[:, -1].clone(), tokens + q.shape[1])
