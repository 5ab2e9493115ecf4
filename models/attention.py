"""Softmax attention that takes a text in pieces: full with a growing cache, and windowed with a visible prefix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.providers import note

Cache = tuple[Tensor, Tensor, int]  # keys and values [b, room, h, d], of which the first `int` rows are filled


def causal_attention(q: Tensor, k: Tensor, v: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
    """Causal attention of new tokens over all tokens so far: `softmax(q k^T / sqrt(d)) v`.

    Shapes: q, k, v [b, t, h, d] -> y [b, t, h, d] and the cache with the new keys and values in it.
    """
    note("sdpa")
    cache = extend(cache, k, v)
    keys, values, length = cache
    past = length - q.shape[1]
    q, keys, values = (x.transpose(1, 2) for x in (q, keys[:, :length], values[:, :length]))
    if past == 0:
        y = F.scaled_dot_product_attention(q, keys, values, is_causal=True)
    elif q.shape[2] == 1:
        y = F.scaled_dot_product_attention(q, keys, values)
    else:
        rows = torch.arange(past, length, device=q.device)[:, None]
        mask = rows >= torch.arange(length, device=q.device)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    return y.transpose(1, 2), cache


def extend(cache: Cache | None, k: Tensor, v: Tensor) -> Cache:
    """The cache with `k`, `v` [b, t, h, d] appended; the one given stays as it was.

    Without gradients the rows are written into spare room behind the filled ones, which only the newest cache on a buffer
    may use; an older one is copied. Room grows by an eighth, so appending one token costs no copy of all on average.
    """
    if cache is None:
        return k, v, k.shape[1]
    keys, values, length = cache
    if keys.dtype != k.dtype:  # a text that goes on in another precision
        keys, values = keys.to(k.dtype), values.to(k.dtype)
    total = length + k.shape[1]
    if torch.is_grad_enabled() and (k.requires_grad or keys.requires_grad):
        return torch.cat([keys[:, :length], k], 1), torch.cat([values[:, :length], v], 1), total
    if total > keys.shape[1] or getattr(keys, "filled", None) != length:
        room = total + max(64, total // 8)
        keys, values = (_copied(old, length, room) for old in (keys, values))
    keys[:, length:total], values[:, length:total] = k, v
    keys.filled = total
    return keys, values, total


def _copied(old: Tensor, length: int, room: int) -> Tensor:
    new = old.new_zeros(old.shape[0], room, *old.shape[2:])
    new[:, :length] = old[:, :length]
    return new


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    past: tuple[Tensor, Tensor] | None = None,
    prefix: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention of each token over itself, the `window - 1` tokens before it, and an always visible prefix.

    Shapes: q, k, v [b, t, h, d]; `past` holds at most `window - 1` earlier keys and values; `prefix` keys and values
    [b or 1, p, h, d]. Returns y [b, t, h, d] and the new past. Cost is linear in t: blocks of `window` queries see two blocks.
    """
    note("sdpa")
    batch, time = q.shape[:2]
    keys, values = (
        (k, v) if past is None else (torch.cat([old.to(k.dtype), x], 1) for old, x in zip(past, (k, v), strict=True))
    )
    before = keys.shape[1] - time
    if time <= window:
        y = _masked(q, keys, values, _band(time, keys.shape[1], before, window, q.device), prefix)
    else:
        y = _blocks(q, keys, values, before, window, prefix)
    kept = max(0, keys.shape[1] - (window - 1))
    return y, (keys[:, kept:].clone(), values[:, kept:].clone())


def _band(rows: int, columns: int, before: int, window: int, device: torch.device) -> Tensor:
    """Mask [rows, columns]: row i stands at column `before + i` and sees `window` columns up to its own."""
    distance = torch.arange(rows, device=device)[:, None] + before - torch.arange(columns, device=device)
    return (distance >= 0) & (distance < window)


def _blocks(q: Tensor, keys: Tensor, values: Tensor, before: int, window: int, prefix) -> Tensor:
    """Windowed attention over many blocks at once: block n of queries against key blocks n - 1 and n."""
    batch, time = q.shape[:2]
    count = -(-time // window)
    q = F.pad(q, (0, 0, 0, 0, 0, count * window - time)).reshape(batch * count, window, *q.shape[2:])
    # The row before the first block is filled up to one whole window, so that block n's keys start at n * window.
    pad = (0, 0, 0, 0, window - before, count * window - time)
    keys, values = (
        F.pad(x, pad).unfold(1, 2 * window, window).permute(0, 1, 4, 2, 3).flatten(0, 1) for x in (keys, values)
    )
    band = _band(window, 2 * window, window, window, q.device)
    real = torch.arange(2 * window, device=q.device) >= window - before
    mask = band.expand(count, -1, -1).clone()
    mask[0] &= real
    if prefix is not None:
        prefix = tuple(x.expand(batch, *x.shape[1:]).repeat_interleave(count, 0) for x in prefix)
    y = _masked(q, keys, values, mask.repeat(batch, 1, 1)[:, None], prefix)
    return y.reshape(batch, count * window, *y.shape[2:])[:, :time]


def _masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, prefix=None) -> Tensor:
    """Attention under a mask [.., rows, columns], with prefix columns that every row sees."""
    if prefix is not None:
        k, v = (
            torch.cat([x.to(y.dtype).expand(q.shape[0], *x.shape[1:]), y], 1)
            for x, y in zip(prefix, (k, v), strict=True)
        )
        mask = F.pad(mask, (prefix[0].shape[1], 0), value=True)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
