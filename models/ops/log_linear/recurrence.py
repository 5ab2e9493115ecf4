"""The law of log-linear attention: a matrix state for every level of age, kept as the digits of a binary counter.

Guo et al. 2025, arXiv 2506.04761. Level 0 is the token itself; after c tokens bucket j, read at level j + 1, holds 2^j of them
where digit j of c is 1, older ones the higher j:

    all buckets <- a_t (all buckets),  with a comparison also less b_t k_t (k_t^T buckets)
    y_t = w_t0 (q_t . k_t) b_t v_t + sum_j w_t,j+1 S_j^T q_t
    then the token's b_t k_t v_t^T is added as a counter counts: full buckets below the first empty one move there with it

The last bucket is never empty again once it is met: everything older stays in it, so that the state is bounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, int]


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor | None = None,
    compare: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """The law over a text: y [b, t, h, v] and the state after its last token.

    Shapes: q, k [b, t, h, k]; v [b, t, h, v]; weights w [b, t, h, levels], at least two; log_forget and rate [b, t, h]; the
    state is the buckets [b, h, levels - 1, k, v] and how many tokens they have counted, None for none. q and k may have one
    head that all values share.
    """
    heads, top = v.shape[2], weights.shape[-1] - 2
    q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
    buckets, count = (q.new_zeros(len(q), heads, top + 1, q.shape[-1], v.shape[-1]), 0) if state is None else state
    buckets, ys = buckets.to(q.dtype), []
    for t in range(q.shape[1]):
        buckets = buckets * log_forget[:, t, :, None, None, None].exp()
        written = v[:, t] if rate is None else rate[:, t, :, None] * v[:, t]
        if compare:
            known = torch.einsum("bhjkv,bhk->bhjv", buckets, k[:, t])
            known = known if rate is None else rate[:, t, :, None, None] * known
            buckets = buckets - k[:, t, :, None, :, None] * known[..., None, :]
        read = torch.einsum("bhjkv,bhk,bhj->bhv", buckets, q[:, t], weights[:, t, :, 1:])
        ys.append(read + (weights[:, t, :, 0] * (q[:, t] * k[:, t]).sum(-1))[..., None] * written)
        count += 1
        place = min((count & -count).bit_length() - 1, top)
        full = buckets[:, :, : place + 1].sum(2) + k[:, t, :, :, None] * written[..., None, :]
        emptied = torch.zeros_like(buckets[:, :, :place])
        buckets = torch.cat([emptied, full[:, :, None], buckets[:, :, place + 1 :]], 2)
    return torch.stack(ys, 1) if ys else v.new_empty(v.shape), (buckets, count)
