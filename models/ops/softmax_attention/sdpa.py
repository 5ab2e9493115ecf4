"""Softmax attention by torch's `scaled_dot_product_attention`, its kernel torch's choice or named; windows in blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.ops.providers import NotCovered
from models.ops.softmax_attention.two_queries import two_queries

Prefix = tuple[Tensor, Tensor]


@two_queries
def sdpa(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: Prefix | None = None) -> Tensor:
    """`recurrence.recurrence` by whichever kernel torch picks; same shapes.

    A window costs time linear in t: blocks of `window` queries see two blocks of keys.
    """
    time, before = q.shape[1], k.shape[1] - q.shape[1]
    if window is None and prefix is None:
        return _causal(q, k, v, before)
    if window is None or time <= window:
        return _masked(q, k, v, _band(time, k.shape[1], before, window or k.shape[1], q.device), prefix)
    return _blocks(q, k, v, before, window, prefix)


@two_queries
def math(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: Prefix | None = None) -> Tensor:
    """`sdpa` in plain products, which stores all scores; same shapes."""
    with sdpa_kernel(SDPBackend.MATH):
        return sdpa(q, k, v, window=window, prefix=prefix)


@two_queries
def flash(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, prefix: Prefix | None = None) -> Tensor:
    """`sdpa` by FlashAttention; same shapes. Raises NotCovered where torch has no such kernel: on CUDA, for masks or float32."""
    if q.device.type == "cuda" and (q.dtype not in (torch.float16, torch.bfloat16) or window or prefix is not None):
        raise NotCovered(
            "Provider 'flash' has no kernel on CUDA for float32, windows or a prefix; use autocast without these, "
            "or provider='sdpa' or 'flex'."
        )
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            if q.device.type == "cuda" and 1 < q.shape[1] < k.shape[1]:
                from torch.nn.attention.bias import causal_lower_right  # brings torch's compiler, which takes seconds

                bias = causal_lower_right(q.shape[1], k.shape[1])
                return _attend(q, k, v, attn_mask=bias)
            return sdpa(q, k, v, window=window, prefix=prefix)
    except RuntimeError as error:
        if "kernel" not in str(error) and "backend" not in str(error):
            raise
        raise NotCovered(
            f"Provider 'flash' has no kernel for these tensors ({q.dtype} on {q.device.type}, {q.shape[-1]} numbers a head); "
            "use provider='sdpa' or 'math'."
        ) from error


def _attend(q: Tensor, k: Tensor, v: Tensor, **named) -> Tensor:
    """torch's call, whose heads stand before time."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **named).transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor, before: int) -> Tensor:
    if before == 0:
        return _attend(q, k, v, is_causal=True)
    if q.shape[1] == 1:
        return _attend(q, k, v)
    rows = torch.arange(before, k.shape[1], device=q.device)[:, None]
    return _attend(q, k, v, attn_mask=rows >= torch.arange(k.shape[1], device=q.device))


def _band(rows: int, columns: int, before: int, window: int, device: torch.device) -> Tensor:
    """Mask [rows, columns]: row i stands at column `before + i` and sees `window` columns up to its own."""
    distance = torch.arange(rows, device=device)[:, None] + before - torch.arange(columns, device=device)
    return (distance >= 0) & (distance < window)


def _blocks(q: Tensor, keys: Tensor, values: Tensor, before: int, window: int, prefix: Prefix | None) -> Tensor:
    """Windowed attention over many blocks at once: block n of queries against key blocks n - 1 and n."""
    batch, time = q.shape[:2]
    count = -(-time // window)
    if before > window:  # the first block reaches back one window
        keys, values, before = keys[:, before - window :], values[:, before - window :], window
    q = F.pad(q, (0, 0, 0, 0, 0, count * window - time)).reshape(batch * count, window, *q.shape[2:])
    # The row before the first block is filled up to one whole window, so that block n's keys start at n * window.
    pad = (0, 0, 0, 0, window - before, count * window - time)
    keys, values = (
        F.pad(x, pad).unfold(1, 2 * window, window).permute(0, 1, 4, 2, 3).flatten(0, 1) for x in (keys, values)
    )
    band = _band(window, 2 * window, window, window, q.device)
    if prefix is not None:
        prefix = tuple(x.expand(batch, *x.shape[1:]).repeat_interleave(count, 0) for x in prefix)
    if before == window:
        y = _masked(q, keys, values, band, prefix)
    else:
        y = _first_apart(
            q, keys, values, band, torch.arange(2 * window, device=q.device) >= window - before, count, prefix
        )
    return y.reshape(batch, count * window, *y.shape[2:])[:, :time]


def _first_apart(
    q: Tensor, keys: Tensor, values: Tensor, band: Tensor, real: Tensor, count: int, prefix: Prefix | None
) -> Tensor:
    """Attention of `count` blocks a row, of which the first sees its `real` columns alone: the others share one mask."""
    given = [q, keys, values, *(prefix or ())]
    found = []
    for part, mask in ((slice(0, 1), band & real), (slice(1, None), band)):
        mine = [x.unflatten(0, (-1, count))[:, part] for x in given]
        q, keys, values, *ahead = (x.flatten(0, 1) for x in mine)
        found.append(_masked(q, keys, values, mask, tuple(ahead) or None).unflatten(0, mine[0].shape[:2]))
    return torch.cat(found, 1).flatten(0, 1)


def _masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, prefix: Prefix | None = None) -> Tensor:
    """Attention under a mask [.., rows, columns], with prefix columns that every row sees."""
    if prefix is not None:
        k, v = (
            torch.cat([x.to(y.dtype).expand(q.shape[0], *x.shape[1:]), y], 1)
            for x, y in zip(prefix, (k, v), strict=True)
        )
        mask = F.pad(mask, (prefix[0].shape[1], 0), value=True)
    return _attend(q, k, v, attn_mask=mask)
