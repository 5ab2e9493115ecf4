"""Attention in every cluster over its closest tokens so far, all tokens at once under a mask for each cluster.

A token s is among the `window` closest of the tokens up to t if fewer than `window` of these beat it, which sums of comparisons
count: t^2 numbers for each head and cluster. Exact, and meant for short texts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.ops.routed_attention.recurrence import LONELY, Members, nothing


def chunked(
    q: Tensor, k: Tensor, v: Tensor, closeness: Tensor, *, window: int, scale: float, state: Members | None = None
) -> tuple[Tensor, Members]:
    """`models.ops.routed_attention.recurrence.balanced` under masks; same shapes."""
    time, clusters = closeness.shape[1], closeness.shape[-1]
    close = closeness.permute(0, 2, 3, 1)
    q, keys, values = (x.transpose(1, 2)[:, :, None].expand(-1, -1, clusters, -1, -1) for x in (q, k, v))
    if state is not None:
        keys, values = (torch.cat([old.to(x.dtype), x], 3) for old, x in zip(state, (keys, values), strict=False))
        close = torch.cat([state[2].to(close.dtype), close], -1)
    seen = _visible(close, window)
    first = close.shape[-1] - time
    mask, takes_part = seen[..., first:, :], seen.diagonal(0, -2, -1)[..., first:]
    reads = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask | ~takes_part[..., None], scale=scale)
    takes_part = takes_part[..., None].to(v.dtype)
    y = (takes_part * reads).sum(2) / (takes_part.sum(2) + LONELY)
    return y.transpose(1, 2), _closest(keys, values, close, seen, window)


@torch.no_grad()
def _visible(close: Tensor, window: int) -> Tensor:
    """Whether row s is among the closest of the rows up to t, [.., t, s]; ties go to the earlier row."""
    rows = torch.arange(close.shape[-1], device=close.device)
    earlier = rows[:, None] < rows
    beats = (close[..., :, None] > close[..., None, :]) | ((close[..., :, None] == close[..., None, :]) & earlier)
    beaten = beats.cumsum(-2, dtype=torch.int32)
    return (beaten < window) & (rows <= rows[:, None]) & (close[..., None, :] > nothing(close))


def _closest(keys: Tensor, values: Tensor, close: Tensor, seen: Tensor, window: int) -> Members:
    """What is left in each cluster behind the last row, in order of time; empty places in front."""
    missing = max(0, window - close.shape[-1])
    left = F.pad(seen[..., -1, :] if close.shape[-1] else close.bool(), (missing, 0))
    index = left.to(torch.int8).argsort(dim=-1, stable=True)[..., -window:]
    keys, values = (F.pad(x, (0, 0, missing, 0)).take_along_dim(index[..., None], 3) for x in (keys, values))
    real = left.gather(-1, index)
    close = F.pad(close, (missing, 0), value=nothing(close)).gather(-1, index).masked_fill(~real, nothing(close))
    return keys * real[..., None].to(keys.dtype), values * real[..., None].to(values.dtype), close
