"""The law of attention that is exact in a window and a kernel of positive features for what has left it:

    w_ts = exp(q_t . k_s / sqrt d)     for the last `window` tokens s <= t
           phi(q_t) . phi(k_s)         for the tokens before them
    y_t  = sum_s w_ts v_s / sum_s w_ts

(Chen et al. 2021, arXiv 2110.15343, with the last tokens as support, so that nothing is counted twice.) phi are the softmax
kernel's features by the rows of `projection` (`features.py`). Token by token here. The state: that of kernel attention for what
has left the window, and keys and values of the last `window` tokens [b, <= window, h, .].
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.kernel_attention.features import softmax_features
from models.ops.kernel_attention.recurrence import begun, ended
from models.ops.kernel_attention.sums import quotient, wide_kind, widened

State = tuple[Tensor, Tensor, int, Tensor, Tensor]


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, *, projection: Tensor, window: int, state: State | None = None
) -> tuple[Tensor, State]:
    """The reference recurrence: y [b, t, h, v] in v's dtype, and the state after the last token.

    Shapes: q, k [b, t, h, d], v [b, t, h, v], projection [m, d]; `window` at least 1, the token's own place included.
    """
    dtype, kind = v.dtype, wide_kind(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = q.to(kind), k.to(kind), widened(v.to(kind), True)
        before, keys, values = opened(q, k, v, projection, state)
        sums, most, left = begun(before, q, v, "exponential")
        ys = []
        tokens = zip(q.unbind(1), k.split(1, 1), v.split(1, 1), strict=True) if q.shape[1] else ()
        for query, key, value in tokens:
            keys, values = torch.cat([keys, key], 1), torch.cat([values, value], 1)
            if keys.shape[1] > window:
                features, value = softmax_features(keys[:, 0], projection), values[:, 0]
                keys, values = keys[:, 1:], values[:, 1:]
                before, most = most, torch.maximum(most, features.detach().amax(-1))
                sums = sums * (before - most).exp()[..., None, None]
                sums, left = sums + (features - most[..., None]).exp()[..., None] * value[..., None, :], left + 1
            exact = torch.einsum("bshd,bhd->bhs", keys, query) * q.shape[-1] ** -0.5
            features = softmax_features(query, projection)
            scale = exact.detach().amax(-1)
            if left:
                scale = torch.maximum(scale, features.detach().amax(-1) + most)
            inside = torch.einsum("bhs,bshv->bhv", (exact - scale[..., None]).exp(), values)
            read = (features + (most - scale)[..., None]).exp() if left else torch.zeros_like(features)
            ys.append(inside + torch.einsum("bhfv,bhf->bhv", sums, read))
        y = quotient(torch.stack(ys, 1), 0.0) if ys else v[..., :-1]
        return y.to(dtype), closed(ended(sums, most, left), keys, values)


def opened(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, state: State | None) -> tuple[tuple, Tensor, Tensor]:
    """Kernel attention's state of what has left the window, and the window's keys and values, with which a piece begins."""
    if state is None:
        nothing = begun(None, q.new_zeros(q.shape[0], 0, q.shape[2], len(projection)), v, "exponential")
        return ended(*nothing), k[:, :0], v[:, :0]
    *left, keys, values = state
    return tuple(left), keys.to(k.dtype), widened(values.to(v.dtype), True)


def closed(left: tuple, keys: Tensor, values: Tensor) -> State:
    """The state that a piece ends with, `left` kernel attention's; no view keeps the piece itself alive."""
    return *left, keys.clone(), values[..., :-1].clone()
