"""Attention that is exact in a window and a kernel of features elsewhere, in blocks.

What has left the window is kernel attention over keys that come `window` tokens late; the window itself is blocks of `window`
queries over two blocks of keys. Both parts of a row are brought to one scale before they are added.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.kernel_attention.chunked import stabilised
from models.ops.kernel_attention.features import softmax_features
from models.ops.kernel_attention.sums import quotient, wide_kind, widened
from models.ops.kernel_attention.window_recurrence import State, closed, opened


def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, projection: Tensor, window: int, state: State | None = None
) -> tuple[Tensor, State]:
    """`models.ops.kernel_attention.window_recurrence.recurrence` in blocks; same shapes."""
    dtype, kind = v.dtype, wide_kind(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = q.to(kind), k.to(kind), widened(v.to(kind), True)
        left, keys, values = opened(q, k, v, projection, state)
        if not q.shape[1]:
            return v[..., :-1].to(dtype), closed(left, keys, values)
        past = keys.shape[1]
        keys, values = torch.cat([keys, k], 1), torch.cat([values, v], 1)
        leave = max(0, keys.shape[1] - window)  # tokens that leave the window in this piece
        alone = q.shape[1] - leave  # rows before which none has
        log_q, log_k = (softmax_features(x, projection) for x in (q[:, alone:], keys[:, :leave]))
        rest, its_scale, left = stabilised(log_q, log_k, values[:, :leave], left)
        inside, scale = _window(q, keys, values, past, window)
        both = torch.cat([scale[:, :alone], torch.maximum(scale[:, alone:], its_scale)], 1)
        sums = inside * (scale - both).exp()[..., None]
        if leave:
            rest = rest * (its_scale - both[:, alone:]).exp()[..., None]
            sums = torch.cat([sums[:, :alone], sums[:, alone:] + rest], 1)
        y = quotient(sums, 0.0)
        return y.to(dtype), closed(left, keys[:, leave:], values[:, leave:])


def _window(q: Tensor, k: Tensor, v: Tensor, past: int, window: int) -> tuple[Tensor, Tensor]:
    """Sums of exact weights [b, t, h, v] in the window, relative to each row's largest, and that one's logarithm [b, t, h].

    Before the piece's first key stand `past` keys of its window.
    """
    batch, time, heads, width = q.shape
    rows = min(window, time)
    blocks = -(-time // rows)
    columns, first = (
        (2 * window, window) if blocks > 1 else (past + time, past)
    )  # a block's keys, its first row's place
    end = blocks * rows - time
    q = F.pad(q, (0, 0, 0, 0, 0, end)).unflatten(1, (blocks, rows)).permute(0, 1, 3, 2, 4)
    k, v = (F.pad(x, (0, 0, 0, 0, first - past, end)).unfold(1, columns, rows).permute(0, 1, 2, 4, 3) for x in (k, v))
    distance = torch.arange(rows, device=q.device)[:, None] + first - torch.arange(columns, device=q.device)
    hidden = ((distance < 0) | (distance >= window)).repeat(blocks, 1, 1)
    hidden[0, :, : first - past] = True
    scores = ((q * width**-0.5) @ k.mT).masked_fill_(hidden[:, None], -torch.inf)
    largest = scores.detach().amax(-1, keepdim=True)
    sums = scores.sub_(largest).exp_() @ v
    sums, largest = (x.transpose(2, 3).flatten(1, 2)[:, :time] for x in (sums, largest))
    return sums, largest[..., 0]
