"""The reference recurrence of a matrix state: every linear recurrence here is one step in four verbs.

    forget    S <- a * S                       a: 1, fixed, or computed from x; per head or per key channel
    compare   e  = v  (Hebb)   or   v - S k    (delta rule: only what S did not know)
    write     S <- S + b * k e^T
    read      y  = S q

Letters, here and in `models/ops/scan/`: b batch, t time, h heads, k key width, v value width. The state S is stored as
[b, h, k, v], so that "S q" is `einsum("bhkv,bhk->bhv")`; forgetting is given as its logarithm, `log_forget = log a <= 0`.

Token by token, as a reader follows it, in any dtype (float64 for tests). The fast forms in `models/ops/scan/` have this
signature and are held to this loop, forward and backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RecurrenceRow:
    """One row of the table: what a model's forgetting depends on, its shape, and how it compares."""

    forget: str  # "none", "fixed", or "from the input"
    per: str  # "head" or "key channel"
    compare: bool
    paper: str


ROWS: dict[str, RecurrenceRow] = {
    "linear-attention": RecurrenceRow("none", "head", False, "Katharopoulos et al. 2020, arXiv 2006.16236"),
    "retnet": RecurrenceRow("fixed", "head", False, "Sun et al. 2023, arXiv 2307.08621"),
    "mamba": RecurrenceRow("from the input", "key channel", False, "Gu and Dao 2023, arXiv 2312.00752"),
    "mamba2": RecurrenceRow("from the input", "head", False, "Dao and Gu 2024, arXiv 2405.21060"),
    "gla": RecurrenceRow("from the input", "key channel", False, "Yang et al. 2023, arXiv 2312.06635"),
    "deltanet": RecurrenceRow("none", "head", True, "Yang et al. 2024, arXiv 2406.06484"),
    "gated-deltanet": RecurrenceRow("from the input", "head", True, "Yang et al. 2024, arXiv 2412.06464"),
}


def step(
    state: Tensor, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor | None, rate: Tensor | None, compare: bool
) -> tuple[Tensor, Tensor]:
    """One token. Shapes: state [b, h, k, v], q and k [b, h, k], v [b, h, v], log_forget [b, h] or [b, h, k], rate [b, h]."""
    if log_forget is not None:
        a = log_forget.exp()
        state = state * (a[..., None] if a.dim() == 3 else a[..., None, None])
    e = v - torch.einsum("bhkv,bhk->bhv", state, k) if compare else v
    if rate is not None:
        e = rate[..., None] * e
    state = state + k[..., None] * e[..., None, :]
    return torch.einsum("bhkv,bhk->bhv", state, q), state


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The reference recurrence over a text: y [b, t, h, v] and the state after its last token.

    Shapes: q, k [b, t, h, k]; v [b, t, h, v]; log_forget [b, t, h] (per head) or [b, t, h, k] (per key channel), None for 1;
    rate b in [b, t, h], None for 1; state [b, h, k, v], None for zeros. q and k may have one head that all values share.
    """
    batch, time, _, key_width = q.shape
    heads = v.shape[2]
    q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
    if state is None:
        state = q.new_zeros(batch, heads, key_width, v.shape[-1])
    elif state.dtype != q.dtype and not torch.is_autocast_enabled(q.device.type):
        state = state.to(q.dtype)
    if log_forget is not None:
        log_forget = log_forget.to(torch.promote_types(log_forget.dtype, q.dtype))
    ys = []
    for t in range(time):
        a = None if log_forget is None else log_forget[:, t]
        b = None if rate is None else rate[:, t]
        y, state = step(state, q[:, t], k[:, t], v[:, t], a, b, compare)
        ys.append(y)
    return torch.stack(ys, dim=1) if ys else v.new_empty(v.shape), state
