"""The law of kernel attention, token by token:

    S <- S + phi(k) [v | 1]^T,   [a | w] = S^T phi(q),   y = a / (w + plus)          y = a where it is not normalised

Letters, here and in this folder: b batch, t time, h heads, f numbers of a query or key, v value width. phi by the kernel's name
(`features.py`). The exponential kernel's sums are kept relative to e^M, M the largest log-feature of a key so far, and a query's
features relative to its own largest: both cancel in y, and no later token can change an earlier one's.

The state is the sums divided by the number of tokens in them, M (exponential kernel only), and that number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.kernel_attention.features import check_kernel, features
from models.ops.kernel_attention.sums import State, mean, quotient, total, wide_kind, widened


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel: str = "product",
    plus: float = 0.0,
    normalise: bool = True,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The reference recurrence: y [b, t, h, v] in v's dtype, and the state after the last token.

    Shapes: q, k [b, t, h, f]; v [b, t, h, v]; features of the kernel "product", log-features of "exponential". `plus` is added
    to the sum of a row's weights. Sums in float32, or in float64 where an input is.
    """
    check_kernel(kernel, plus)
    dtype, kind = v.dtype, wide_kind(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = q.to(kind), k.to(kind), widened(v.to(kind), normalise)
        ys, (sums, most, tokens) = [], begun(state, q, v, kernel)
        for t in range(q.shape[1]):
            own_q, own_k, shift = q[:, t], k[:, t], None
            if kernel == "exponential":
                shift, before = own_q.detach().amax(-1, keepdim=True), most
                most = torch.maximum(most, own_k.detach().amax(-1))
                sums = sums * (before - most).exp()[..., None, None]
                own_q, own_k = own_q - shift, own_k - most[..., None]
            sums = sums + features(own_k, kernel)[..., None] * v[:, t, :, None, :]
            read = torch.einsum("bhfv,bhf->bhv", sums, features(own_q, kernel))
            if shift is not None and not normalise:
                read = read * (shift + most[..., None]).exp()
            ys.append(read)
        tokens += q.shape[1]
        y = torch.stack(ys, 1) if ys else v
        y = quotient(y, plus) if normalise else y
    return y.to(dtype), ended(sums, most, tokens)


def begun(state: State | None, q: Tensor, v: Tensor, kernel: str) -> tuple[Tensor, Tensor | None, int]:
    """The sums, M and the tokens in them that a piece begins with."""
    if state is not None:
        sums, *most, tokens = state
        return total(sums.to(q.dtype), tokens), most[0].to(q.dtype) if most else None, tokens
    batch, _, heads, width = q.shape
    count = features(q.new_zeros(1, width), kernel).shape[-1]
    most = q.new_full((batch, heads), torch.finfo(q.dtype).min) if kernel == "exponential" else None
    return q.new_zeros(batch, heads, count, v.shape[-1]), most, 0


def ended(sums: Tensor, most: Tensor | None, tokens: int) -> State:
    """The state that a piece ends with."""
    return (mean(sums, tokens), tokens) if most is None else (mean(sums, tokens), most, tokens)
