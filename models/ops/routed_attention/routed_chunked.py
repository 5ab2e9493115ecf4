"""Attention in a token's own cluster, fast: rows sorted by cluster and time, then a window over blocks of the sorted rows.

The last `window` members of a cluster stand side by side when sorted, so that each block of `window` rows sees itself and the
block before: linear in the text. A piece that is no longer than the window is computed under a mask of all pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.ops.autograd import by_hand
from models.ops.routed_attention.recurrence import Members


class _Rows(NamedTuple):
    """Carried members and new tokens side by side, [b, h, n, ..]: the last `new` rows are new."""

    keys: Tensor
    values: Tensor
    cluster: Tensor
    real: Tensor | None  # None: all of them
    new: int


def chunked(
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
    """`models.ops.routed_attention.recurrence.routed` in blocks; same shapes."""
    q, k, v, cluster = (x.transpose(1, 2) for x in (q, k, v, cluster))
    rows = _rows(k, v, cluster, clusters, window, state)
    order = rows.cluster.argsort(dim=-1, stable=True)
    if rows.new <= window:
        y = _pairs(q, rows, clusters, window, scale)
    else:
        y = _blocks(q, rows, order, window, scale)
    filled = F.one_hot(cluster, clusters).sum(2)
    filled = filled if state is None else filled + state[2]
    return y.transpose(1, 2), (*_members(rows, order, clusters, window), filled.clamp(max=window - 1))


def _rows(k: Tensor, v: Tensor, cluster: Tensor, clusters: int, window: int, state: Members | None) -> _Rows:
    if state is None:
        return _Rows(k, v, cluster, None, k.shape[2])
    keys, values, filled = state
    owner = torch.arange(clusters, device=k.device).repeat_interleave(window - 1).expand(*filled.shape[:2], -1)
    real = torch.arange(window - 1, device=k.device) >= window - 1 - filled[..., None]
    return _Rows(
        torch.cat([keys.flatten(2, 3).to(k.dtype), k], 2),
        torch.cat([values.flatten(2, 3).to(v.dtype), v], 2),
        torch.cat([owner, cluster], 2),
        F.pad(real.flatten(2), (0, k.shape[2]), value=True),
        k.shape[2],
    )


def _pairs(q: Tensor, rows: _Rows, clusters: int, window: int, scale: float) -> Tensor:
    """Attention of the new rows under a mask of all pairs; a row's rank tells how far back in its cluster it stands."""
    own = F.one_hot(rows.cluster, clusters)
    rank = (own.cumsum(2) * own).sum(-1)
    distance = rank[..., -rows.new :, None] - rank[..., None, :]
    mask = (rows.cluster[..., -rows.new :, None] == rows.cluster[..., None, :]) & (distance >= 0) & (distance < window)
    mask = mask if rows.real is None else mask & rows.real[..., None, :]
    return F.scaled_dot_product_attention(q, rows.keys, rows.values, attn_mask=mask, scale=scale)


def _blocks(q: Tensor, rows: _Rows, order: Tensor, window: int, scale: float) -> Tensor:
    """Attention over the sorted rows, block n of queries against blocks n - 1 and n."""
    total, back = order.shape[-1], order.argsort(-1)
    q = F.pad(q, (0, 0, total - rows.new, 0))
    more = -total % window
    q, keys, values = (
        F.pad(_Ordered.apply(x, order, back), (0, 0, 0 if x is q else window, more))
        for x in (q, rows.keys, rows.values)
    )
    q = q.unflatten(2, (-1, window)).flatten(0, 2)
    keys, values = (x.unfold(2, 2 * window, window).flatten(0, 2).mT for x in (keys, values))
    mask = _mask(rows, order, window, more).flatten(0, 2)
    q, keys, values, mask = (x[:, None] for x in (q, keys, values, mask))
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scale)
    y = y.reshape(*order.shape[:2], -1, y.shape[-1])[:, :, :total]
    return _Ordered.apply(y, back, order)[:, :, total - rows.new :]


def _mask(rows: _Rows, order: Tensor, window: int, more: int) -> Tensor:
    """Who sees whom in every block [b, h, blocks, window, 2 window]: the same cluster, `window` rows back, itself always."""
    owner = rows.cluster.gather(-1, order)
    mine = F.pad(owner, (0, more), value=-1).unflatten(2, (-1, window))
    theirs = F.pad(owner, (window, more), value=-1).unfold(2, 2 * window, window)
    places = torch.arange(2 * window, device=order.device)
    distance = places[window:, None] - places
    mask = (mine[..., :, None] == theirs[..., None, :]) & (distance >= 0) & (distance < window)
    if rows.real is None:
        return mask
    real = F.pad(rows.real.gather(-1, order), (window, more)).unfold(2, 2 * window, window)
    return mask & (real[..., None, :] | (distance == 0))


def _members(rows: _Rows, order: Tensor, clusters: int, window: int) -> tuple[Tensor, Tensor]:
    """The last `window - 1` keys and values of each cluster, the newest behind, zeros where there are fewer."""
    count = F.one_hot(rows.cluster, clusters).sum(2)
    end = count.cumsum(-1)[..., None]
    place = end - (window - 1) + torch.arange(window - 1, device=order.device)
    there = place >= end - count[..., None]
    if not order.numel():
        return tuple(x.new_zeros(*place.shape, x.shape[-1]) for x in (rows.keys, rows.values))
    index = order.gather(-1, place.clamp(min=0).flatten(2))[..., None]
    return tuple(
        x.take_along_dim(index, 2).unflatten(2, place.shape[2:]) * there[..., None].to(x.dtype)
        for x in (rows.keys, rows.values)
    )


class _Ordered(torch.autograd.Function):
    """`apply(x, order, back)`: rows of x [b, h, n, d] in an order [b, h, n]; `back` undoes it, which is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return _taken(x, order)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return _taken(dy, *ctx.saved_tensors), None, None


def _taken(x: Tensor, order: Tensor) -> Tensor:
    first = torch.arange(order[..., 0].numel(), device=x.device) * order.shape[-1]
    index = (order.flatten(0, 1) + first[:, None]).flatten()
    return x.reshape(-1, x.shape[-1]).index_select(0, index).view(*order.shape, x.shape[-1])
