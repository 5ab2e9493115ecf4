"""The matrix-state law in chunks: matrix products inside a chunk, a short loop over the chunks' states.

With c_t the cumulated log-forgetting inside a chunk and S_0 the state before it,

    Hebb          y_t = e^{c_t} S_0 q_t + sum_{s<=t} e^{c_t - c_s} b_s (k_s . q_t) v_s
    delta rule    (I + X) E = V - e^{c} K S_0,   X[t,s] = e^{c_t - c_s} b_s (k_t . k_s) for s < t,
                  and then the Hebbian form with E in the place of V

(Yang et al. 2024, arXiv 2406.06484 and 2412.06464, with the right-hand side left in the loop.) Every exponent is <= 0, so
nothing overflows and gates near 0 are exact. Forgetting per key channel takes its ratios relative to the start of short
sub-blocks and, inside one, pair by pair (Yang et al. 2023, arXiv 2312.06635), for the same reason.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
CHANNEL_CHUNK = 16


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.recurrence.recurrence` in chunks; same shapes. Half precision is computed in float32, states stay there.

    Raises NotImplementedError for the delta rule with forgetting per key channel, which has no chunked form here.
    """
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, log_forget, rate, state = (
            None if x is None else x.to(kind) for x in (q, k, v, log_forget, rate, state)
        )
        per_channel = log_forget is not None and log_forget.dim() == 4
        if per_channel and compare:
            raise NotImplementedError(
                "The delta rule with forgetting per key channel has no chunked form; use provider='recurrence'."
            )
        if state is None:
            state = q.new_zeros(q.shape[0], v.shape[2], q.shape[3], v.shape[3])
        if rate is not None and not compare:
            v = v * rate[..., None]  # without a comparison the rate is only a scale of what is written
            rate = None
        shared = q.shape[2] == k.shape[2] == 1 < v.shape[2] and log_forget is not None and not (compare or per_channel)
        form = _shared_keys if shared else _per_channel if per_channel else _per_head
        y, state = form(q, k, v, log_forget, rate, compare, state)
    return y.to(dtype), state


def _cut(x: Tensor, size: int) -> Tensor:
    """[b, t, h, ...] -> [b, h, n, size, ...], zero-filled at the end.

    Zeros are harmless: a filled row has k = v = 0 and log-forgetting 0, so it writes nothing and forgets nothing.
    """
    short = -x.shape[1] % size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
    return x.unflatten(1, (-1, size)).movedim(3, 1)


def _joined(y: Tensor, time: int) -> Tensor:
    """[b, h, n, size, v] -> [b, t, h, v]."""
    return y.flatten(2, 3).transpose(1, 2)[:, :time]


def _per_head(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    time = q.shape[1]
    size = min(CHUNK, time)
    q, k, v = (_cut(x, size) for x in (q, k, v))
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    scores = q @ k.mT
    if log_forget is None:
        c = last = None
        ratio = lower.to(q.dtype)
        scores = scores * ratio
    else:
        c = _cut(log_forget, size).cumsum(-1)
        # Masked before exp: above the diagonal the exponent is positive and may overflow.
        ratio = (c[..., :, None] - c[..., None, :]).masked_fill(~lower, float("-inf")).exp()
        scores = scores * ratio
        last = c[..., -1:]
    from_state = q if c is None else q * c.exp()[..., None]
    to_state = k if c is None else k * (last - c).exp()[..., None]
    keep = None if c is None else last.exp()[..., None]
    if compare:
        b = 1.0 if rate is None else _cut(rate, size)[..., None]
        y, state = _delta_loop(k, v, b, c, ratio, scores, from_state, to_state, keep, state)
    else:
        writes = to_state.mT @ v
        starts, state = _carry(writes, keep, state)
        y = scores @ v + from_state @ starts
    return _joined(y, time), state


def _shared_keys(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    """One query and key for all heads (Mamba-2): their products are taken once, the heads' values side by side.

    Decays stand on the side of the values, so that nothing as wide as the keys is built for each head.
    """
    time, heads = q.shape[1], v.shape[2]
    size = min(CHUNK, time)
    q, k = (_cut(x, size)[:, 0] for x in (q, k))  # [b, n, size, k]
    v, c = _cut(v, size), _cut(log_forget, size).cumsum(-1)  # [b, h, n, size, v], [b, h, n, size]
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    ratio = (c[..., :, None] - c[..., None, :]).masked_fill(~lower, float("-inf")).exp()
    inside = ((q @ k.mT)[:, None] * ratio) @ v

    weighted = v * (c[..., -1:] - c).exp()[..., None]
    writes = (k.mT @ _beside(weighted)).unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4)
    starts, state = _carry(writes, c[..., -1, None, None].exp(), state)
    known = (q @ _beside(starts)).unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4)
    return _joined(torch.addcmul(inside, known, c.exp()[..., None]), time), state


def _beside(x: Tensor) -> Tensor:
    """[b, h, n, r, v] -> [b, n, r, h * v]."""
    return x.permute(0, 2, 3, 1, 4).flatten(3)


def _carry(writes: Tensor, keep: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk, [b, h, n, k, v], and the last one, from what each chunk writes and how much it keeps."""
    starts = []
    for n in range(writes.shape[2]):
        starts.append(state)
        state = writes[:, :, n] + (state if keep is None else state * keep[:, :, n])
    return torch.stack(starts, dim=2), state


def _delta_loop(k, v, b, c, ratio, scores, from_state, to_state, keep, state) -> tuple[Tensor, Tensor]:
    """The delta rule over the chunks. `E = T (b v) - T (b e^c K) S_0` with `T = (I + X)^-1` solved for all chunks at once."""
    kb = k * b
    x = ((kb @ k.mT) * ratio).tril(-1)
    right = torch.cat([v * b, kb if c is None else kb * c.exp()[..., None]], dim=-1)
    solved = torch.linalg.solve_triangular(x, right, upper=False, unitriangular=True)
    fresh, known = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    errors, starts = [], []
    for n in range(k.shape[2]):
        starts.append(state)
        error = fresh[:, :, n] - known[:, :, n] @ state
        errors.append(error)
        write = to_state[:, :, n].mT @ error
        state = write + (state if keep is None else state * keep[:, :, n])
    y = scores @ torch.stack(errors, 2) + from_state @ torch.stack(starts, 2)
    return y, state


def _per_channel(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    time = q.shape[1]
    size = min(CHANNEL_CHUNK, time)
    q, k, v, c = (_cut(x, size) for x in (q, k, v, log_forget))
    c = c.cumsum(-2)
    last = c[..., -1:, :]
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()[..., None]
    ratio = (c[..., :, None, :] - c[..., None, :, :]).masked_fill(~lower, float("-inf")).exp()
    scores = torch.einsum("bhnik,bhnjk,bhnijk->bhnij", q, k, ratio)
    writes = (k * (last - c).exp()).mT @ v
    starts, state = _carry(writes, last.exp().mT, state)
    y = scores @ v + (q * c.exp()) @ starts
    return _joined(y, time), state
