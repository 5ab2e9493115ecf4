"""Softmax attention that takes a text in pieces: full with a growing cache, and windowed with a visible prefix.

Who computes is the operation's matter (`models.ops.softmax_attention`); here the keys and values of earlier pieces are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.softmax_attention import softmax_attention, windowed_attention
from models.ops.softmax_attention.native import attend

Cache = tuple[Tensor, Tensor, int]  # keys and values [b, room, h, d], of which the first `int` rows are filled


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, cache: Cache | None = None, provider: str = "auto"
) -> tuple[Tensor, Cache]:
    """Causal attention of new tokens over all tokens so far: `softmax(q k^T / sqrt(d)) v`.

    Shapes: q, k, v [b, t, h, d] -> y [b, t, h, d] and the cache with the new keys and values in it.
    """
    keys, values, length = cache = extend(cache, k, v)
    return softmax_attention(q, keys[:, :length], values[:, :length], provider=provider), cache


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
    provider: str = "auto",
    prefix_query: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention of each token over itself, the `window - 1` tokens before it, and an always visible prefix.

    Shapes: q, k, v [b, t, h, d]; `past` holds at most `window - 1` earlier keys and values; `prefix` keys and values
    [b or 1, p, h, d], asked by `prefix_query` where it is not q. Returns y [b, t, h, d] and the new past. Cost is linear in t.
    """
    if past is not None and prefix is None and provider == "auto":
        if (y := attend([(q, *past), (q, k, v)])) is not None:
            return y, window_after(past, (k, v), window)
    keys, values = (
        (k, v) if past is None else (torch.cat([old.to(k.dtype), x], 1) for old, x in zip(past, (k, v), strict=True))
    )
    named = {"window": window, "prefix": prefix, "prefix_query": prefix_query}
    y = windowed_attention(q, keys, values, **named, provider=provider)
    kept = max(0, keys.shape[1] - (window - 1))
    return y, (keys[:, kept:].clone(), values[:, kept:].clone())


def window_after(past: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], window: int) -> tuple[Tensor, Tensor]:
    """The last `window - 1` keys and values after one token's, [b, 1, h, d], behind those of the past."""
    if window == 1:
        return tuple(old[:, :0] for old in past)
    start = max(0, past[0].shape[1] + 2 - window)
    return tuple(torch.cat([old[:, start:], x], 1) for old, x in zip(past, new, strict=True))
