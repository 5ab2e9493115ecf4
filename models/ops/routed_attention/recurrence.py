"""Attention inside clusters as plain loops over tokens, from their definitions; in any dtype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LONELY = 1e-2  # beside the number of a token's clusters: one in none has zeros

Members = tuple[Tensor, Tensor, Tensor]


def nothing(closeness: Tensor) -> float | int:
    """What stands for no token among numbers of that dtype, below all of them."""
    return float("-inf") if closeness.is_floating_point() else torch.iinfo(closeness.dtype).min


def attend(q: Tensor, keys: Tensor, values: Tensor, real: Tensor, scale: float) -> Tensor:
    """`softmax(scale q keys^T) values` over the rows that are real: q [.., d], keys and values [.., n, d], real [.., n]."""
    scores = scale * (keys @ q[..., None])[..., 0]
    weights = scores.masked_fill(~real, float("-inf")).softmax(-1)
    return (weights[..., None, :] @ values)[..., 0, :]


def routed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cluster: Tensor,
    *,
    clusters: int,
    window: int,
    scale: float,
    state: Members | None = None,
) -> tuple[Tensor, Members]:
    """Attention over the last `window` tokens of a token's own cluster, itself among them: y [b, t, h, v] and the members.

    Shapes: q, k [b, t, h, d], v [b, t, h, v], `cluster` [b, t, h] whole numbers below `clusters`. The state is each cluster's
    last `window - 1` keys [b, h, clusters, window - 1, d] and values, the newest behind, and how many are filled.
    """
    batch, time, heads, _ = q.shape
    if state is None:
        room = (batch, heads, clusters, window - 1)
        state = k.new_zeros(*room, k.shape[-1]), v.new_zeros(*room, v.shape[-1]), cluster.new_zeros(room[:3])
    keys, values, filled = (x.to(y.dtype) for x, y in zip(state, (k, v, cluster), strict=True))
    ys, slots = [], torch.arange(window, device=q.device)
    for t in range(time):
        own = F.one_hot(cluster[:, t], clusters).bool()
        seen = torch.cat([(keys * own[..., None, None]).sum(2), k[:, t, :, None]], 2)
        told = torch.cat([(values * own[..., None, None]).sum(2), v[:, t, :, None]], 2)
        real = slots >= window - 1 - (filled * own).sum(2, keepdim=True)
        ys.append(attend(q[:, t], seen, told, real, scale))
        keys = torch.where(own[..., None, None], seen[:, :, None, 1:], keys)
        values = torch.where(own[..., None, None], told[:, :, None, 1:], values)
        filled = (filled + own).clamp(max=window - 1)
    return torch.stack(ys, 1) if ys else v[..., :0, :, :].new_empty(v.shape), (keys, values, filled)


def balanced(
    q: Tensor, k: Tensor, v: Tensor, closeness: Tensor, *, window: int, scale: float, state: Members | None = None
) -> tuple[Tensor, Members]:
    """Attention in every cluster over the `window` closest tokens so far: y [b, t, h, v] and what each cluster has.

    A token takes part in the clusters that have it among their closest when it comes, and its output is the sum of what it
    reads there over their number + 0.01. Of equally close tokens the earlier stays. Shapes: q, k [b, t, h, d], v [b, t, h, v],
    `closeness` [b, t, h, clusters]. The state is each cluster's keys [b, h, clusters, window, d] and values in order of
    time, and how close they are, `nothing` where there is none. Whole numbers compare alike however a text is cut.
    """
    batch, time, heads, clusters = closeness.shape
    if state is None:
        room = (batch, heads, clusters, window)
        state = (
            k.new_zeros(*room, k.shape[-1]),
            v.new_zeros(*room, v.shape[-1]),
            closeness.new_full(room, nothing(closeness)),
        )
    keys, values, close = (x.to(y.dtype) for x, y in zip(state, (k, v, closeness), strict=True))
    ys = []
    for t in range(time):
        close = torch.cat([close, closeness[:, t, ..., None]], -1)
        keys, values = (
            torch.cat([old, new[:, t, :, None, None].expand(-1, -1, clusters, -1, -1)], 3)
            for old, new in ((keys, k), (values, v))
        )
        kept = close.sort(stable=True, dim=-1, descending=True)[1][..., :window].sort(dim=-1)[0]
        close = close.gather(-1, kept)
        keys, values = (x.take_along_dim(kept[..., None], 3) for x in (keys, values))
        takes_part = (kept[..., -1:] == window).to(v.dtype)
        reads = attend(q[:, t, :, None].expand(-1, -1, clusters, -1), keys, values, close > nothing(close), scale)
        ys.append((takes_part * reads).sum(2) / (takes_part.sum(2) + LONELY))
    return torch.stack(ys, 1) if ys else v.new_empty(v.shape), (keys, values, close)
