"""Softmax attention row by row, each from its own keys: the law that the fast forms are held to."""

from __future__ import annotations

import torch
from torch import Tensor

Prefix = tuple[Tensor, Tensor]


def recurrence(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: Prefix | None = None) -> Tensor:
    """y [b, t, h, v] of the last t tokens of a text of n: `softmax(q k^T / sqrt(d)) v` over what each token sees.

    Shapes: q [b, t, h, d], k [b, n, h, d], v [b, n, h, v], n >= t. A token sees itself and all before it, or the last `window`
    of these with itself, and always the keys and values [b or 1, p, h, d] of `prefix`.
    """
    return _row_by_row(q, k, v, k.shape[1] if window is None else window, prefix, q)


def windowed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    prefix: Prefix | None = None,
    prefix_query: Tensor | None = None,
) -> Tensor:
    """y [b, t, h, v] of the last t tokens of a text of n: `softmax(q k^T / sqrt(d)) v` over a window and a prefix.

    Shapes: q [b, t, h, d], k [b, n, h, d], v [b, n, h, v], n >= t. A token sees the last `window` tokens up to itself, and always
    the keys and values [b or 1, p, h, d] of `prefix`; these are asked by `prefix_query`, as q, where it is given, as a query
    without a place asks keys without one.
    """
    return _row_by_row(q, k, v, window, prefix, q if prefix_query is None else prefix_query)


def _row_by_row(q: Tensor, k: Tensor, v: Tensor, window: int, prefix: Prefix | None, asked: Tensor) -> Tensor:
    first, ys = k.shape[1] - q.shape[1], []
    for t in range(q.shape[1]):
        place = first + t
        start = max(0, place + 1 - window)
        keys, values = k[:, start : place + 1], v[:, start : place + 1]
        scores = torch.einsum("bhd,bnhd->bhn", q[:, t], keys)
        if prefix is not None:
            always, prefix_values = (x.to(v.dtype).expand(len(v), -1, -1, -1) for x in prefix)
            scores = torch.cat([torch.einsum("bhd,bnhd->bhn", asked[:, t], always), scores], -1)
            values = torch.cat([prefix_values, values], 1)
        weights = (scores * q.shape[-1] ** -0.5).softmax(-1).to(values.dtype)
        ys.append(torch.einsum("bhn,bnhd->bhd", weights, values))
    return torch.stack(ys, 1) if ys else v[:, :0].new_empty(*q.shape[:3], v.shape[-1])
