"""Softmax attention row by row, each from its own keys: the law that the fast forms are held to."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """y [b, t, h, v] of the last t tokens of a text of n: `softmax(q k^T / sqrt(d)) v` over what each token sees.

    Shapes: q [b, t, h, d], k [b, n, h, d], v [b, n, h, v], n >= t. A token sees itself and all before it, or the last `window`
    of these with itself, and always the keys and values [b or 1, p, h, d] of `prefix`.
    """
    first, ys = k.shape[1] - q.shape[1], []
    for t in range(q.shape[1]):
        place = first + t
        start = 0 if window is None else max(0, place + 1 - window)
        keys, values = k[:, start : place + 1], v[:, start : place + 1]
        if prefix is not None:
            keys, values = (
                torch.cat([always.to(own.dtype).expand(len(own), -1, -1, -1), own], 1)
                for always, own in zip(prefix, (keys, values), strict=True)
            )
        scores = torch.einsum("bhd,bnhd->bhn", q[:, t], keys) * q.shape[-1] ** -0.5
        ys.append(torch.einsum("bhn,bnhd->bhd", scores.softmax(-1).to(values.dtype), values))
    return torch.stack(ys, 1) if ys else v[:, :0].new_empty(*q.shape[:3], v.shape[-1])
