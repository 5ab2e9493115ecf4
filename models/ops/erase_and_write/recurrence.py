"""The delta rule whose keys for comparing, erasing and writing are three, on a state that forgets per key channel.

    forget     S' = a S                                   a [k] or one number a head
    compare    e = p^T S'      (or p^T S: before it forgets)
    erase      S' <- S' - x e^T
    write      S' <- S' + w v^T
    read       y = q^T S'

Where one key erases and writes, x = w, this is the delta rule S' + w (v - e)^T; a rate is a factor of w. Rows of this law:

    Kimi Delta Attention      p = k, w = b k, compared after forgetting
    Gated DeltaNet-2          p = b k, w = k, v = w v, compared after forgetting
    Comba                     p = b k, w = rate k, compared before
    RWKV-7                    p = kk, x = a kk, w = k, compared before

Token by token, as a reader follows it, in any dtype (float64 for tests); letters as in `models/ops/scan/recurrence.py`.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def step(
    state: Tensor, q: Tensor, compare: Tensor, erase: Tensor, write: Tensor, v: Tensor, log_forget: Tensor, before: bool
) -> tuple[Tensor, Tensor]:
    """One token. Shapes: state [b, h, k, v]; q, compare, erase, write and log_forget [b, h, k]; v [b, h, v]."""
    kept = state * log_forget.exp()[..., None]
    known = torch.einsum("bhkv,bhk->bhv", state if before else kept, compare)
    state = kept - erase[..., None] * known[..., None, :] + write[..., None] * v[..., None, :]
    return torch.einsum("bhkv,bhk->bhv", state, q), state


def recurrence(
    q: Tensor,
    compare: Tensor,
    write: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    erase: Tensor | None = None,
    before: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The law over a text: y [b, t, h, v] and the state after its last token.

    Shapes: q, compare, write, erase [b, t, h, k]; v [b, t, h, v]; log_forget <= 0 [b, t, h, k] (per key channel) or [b, t, h]
    (per head); state [b, h, k, v], None for zeros. `erase` is `write` where it is None; `before`: compare before forgetting.
    """
    batch, time, heads, width = q.shape
    erase = write if erase is None else erase
    if log_forget.dim() == 3:
        log_forget = log_forget[..., None].expand_as(q)
    own = (q, compare, erase, write, v, log_forget)
    kind = reduce(torch.promote_types, (x.dtype for x in own))  # gates may be wider than keys
    if state is None:
        state = q.new_zeros(batch, heads, width, v.shape[-1], dtype=kind)
    elif time and state.dtype != kind and not torch.is_autocast_enabled(q.device.type):
        state = state.to(kind)
    ys = []
    for t in range(time):
        y, state = step(state, *(x[:, t].to(kind) for x in own), before)
        ys.append(y.to(q.dtype))
    return torch.stack(ys, dim=1) if ys else v.new_empty(v.shape), state
