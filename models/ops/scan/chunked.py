"""The matrix-state law in chunks: matrix products inside a chunk, a short loop over the chunks' states.

With c_t the cumulated log-forgetting inside a chunk and S_0 the state before it,

    Hebb          y_t = e^{c_t} S_0 q_t + sum_{s<=t} e^{c_t - c_s} b_s (k_s . q_t) v_s
    delta rule    (I + X) E = V - e^{c} K S_0,   X[t,s] = e^{c_t - c_s} b_s (k_t . k_s) for s < t,
                  and then the Hebbian form with E in the place of V

(Yang et al. 2024, arXiv 2406.06484 and 2412.06464.) Every exponent is <= 0, so nothing overflows and gates near 0 are exact.
Here the text is cut and a form is chosen: `scan_delta`, `scan_hebb` and `scan_channels` hold the forms, each with its backward
pass by hand, since on a CPU the tables that automatic differentiation keeps cost more than the products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.scan.delta_rule import Delta
from models.ops.scan.hebbian import Hebb, SharedHebb
from models.ops.scan.hebbian_per_channel import ChannelHebb

CHUNK = 64
NARROW = 64  # on a CPU, keys of at most this width take half a CHUNK where each head has its own
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
    """`models.ops.scan.recurrence.recurrence` in chunks; same shapes. Half precision is computed in float32, states stay there.

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
                "The delta rule with forgetting per key channel has its chunked form in another operation: call "
                "erase_and_write(q, compare=k, write=rate * k, v=v, log_forget=log_forget), or use provider='recurrence'."
            )
        if state is None:
            state = q.new_zeros(q.shape[0], v.shape[2], q.shape[3], v.shape[3])
        if not q.shape[1]:
            return v.to(dtype), state
        if rate is not None and not compare:
            v = v * rate[..., None]  # without a comparison the rate is only a scale of what is written
            rate = None
        shared = q.shape[2] == k.shape[2] == 1 < v.shape[2] and log_forget is not None and not (compare or per_channel)
        form = _shared_keys if shared else _per_channel if per_channel else _per_head
        y, state = form(q, k, v, log_forget, rate, compare, state)
    return y.to(dtype), state


def _cut(x: Tensor, size: int) -> Tensor:
    """[b, t, ...] -> [n, b, size, ...], zero-filled at the end.

    Zeros are harmless: a filled row has k = v = 0 and log-forgetting 0, so it writes nothing and forgets nothing.
    """
    short = -x.shape[1] % size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
    return x.unflatten(1, (-1, size)).transpose(0, 1)


def cut_heads(x: Tensor, size: int) -> Tensor:
    """[b, t, h, ...] -> [n, b * h, size, ...], contiguous: every step of the loop over chunks is one slice."""
    return _cut(x, size).transpose(2, 3).flatten(1, 2).contiguous()


def joined(y: Tensor, batch: int, time: int) -> Tensor:
    """[n, b * h, size, v] -> [b, t, h, v]."""
    return y.unflatten(1, (batch, -1)).permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :time]


def _per_head(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    batch, time, heads = v.shape[:3]
    q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
    # With narrow keys the tables between tokens cost more than the products with states.
    narrow = q.device.type == "cpu" and q.shape[-1] <= NARROW
    size = min(CHUNK // 2 if narrow else CHUNK, time)
    fixed = log_forget is not None and log_forget.stride()[:2] == (0, 0)
    own = [cut_heads(x, size) for x in (q, k, v)]
    forget = None if log_forget is None else cut_heads(log_forget, size)
    if compare:
        rate = own[0].new_ones(own[0].shape[:-1]) if rate is None else cut_heads(rate, size)
        y, state = Delta.apply(*own, rate, forget, state.flatten(0, 1), fixed)
    else:
        y, state = Hebb.apply(*own, forget, state.flatten(0, 1), fixed)
    return joined(y, batch, time), state.unflatten(0, (batch, heads))


def _shared_keys(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    time = q.shape[1]
    size = min(CHUNK, time)
    q, k, v, forget = (_cut(x, size) for x in (q[:, :, 0], k[:, :, 0], v, log_forget))
    y, state = SharedHebb.apply(
        *(x.contiguous() for x in (q, k, v)), forget.mT.contiguous(), state.transpose(1, 2).contiguous()
    )
    return y.transpose(0, 1).flatten(1, 2)[:, :time], state.transpose(1, 2)


def _per_channel(q, k, v, log_forget, rate, compare, state) -> tuple[Tensor, Tensor]:
    batch, time, heads = v.shape[:3]
    q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
    size = min(CHANNEL_CHUNK, 1 << (time - 1).bit_length())
    own = [cut_heads(x, size) for x in (q, k, v, log_forget)]
    y, state = ChannelHebb.apply(*own, state.flatten(0, 1))
    return joined(y, batch, time), state.unflatten(0, (batch, heads))
