"""Yaad: Titans' memory with the Huber loss, so that one surprising token cannot overwrite much.

Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173 (MIRAS), eq. 26 and sections 5.3, 5.4; no code was published.

    W_t = alpha_t W_{t-1} - eta_t ( grad of 1/2 |M(k) - v|^2 where |M(k) - v| <= delta_t, else of delta_t |M(k) - v| )
    y_t = M_t(q_t),   M(x) = x + LN(W_2 gelu(W_1 x)),   hidden layer 4 times as wide

No momentum; gradients at the memory of the last chunk's end (section 5.4). Letters: alpha what is kept, eta the rate, delta the
threshold, each from x. Shapes as in `models/ops/associative_memory/retention_recurrence.py`.

Where the paper is silent, or has two readings:

- `per_channel=False`: |M(k) - v| is the length of the whole error, as eq. 26's norm; True clamps each channel (eq. 14).
- `threshold=None`: delta = softplus(w x + c), 1 at first: errors of unit values are about that long. A number fixes it (the
  paper's ablation "input-independent"); inf is Titans' step without momentum.
- The factor 2 of the squared loss is part of the rate, so that both branches meet at delta with one gradient.
- The range of the rate, the values' unit length, the norm's epsilon of 0.1 and the drawn memory are those of Titans here.

Deviation: alpha, eta and delta are one number a head, the paper's one a channel, by low-rank maps of rank 32 or 64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.law import Law
from models.registry import register
from models.titans.miras_memory import PAPERS, Miras, MirasMemory, rule_of

UNIT = math.log(math.e - 1)  # softplus(UNIT) = 1


@register(
    "yaad",
    paper="Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173",
    equation="W <- a W - r grad Huber_d(M(k) - v);  y = M(q)",
)
class Yaad(Miras):
    """The layer. State: the convolution's last inputs; W at the last anchor and the open chunk's tokens."""

    law = Law(
        forget="alpha, per head, from x",
        compare="M(k) - v",
        write="-eta grad Huber_delta(M(k) - v)",
        read="M(q)",
    )
    reading = "Huber's threshold on the whole error's length, range of the rate, length of values, the drawn memory"

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        threshold: float | None = None,
        per_channel: bool = False,
        memory: MirasMemory = PAPERS,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        if threshold is not None and threshold <= 0:
            raise ValueError(f"Yaad needs threshold > 0, or None to compute it from each token, not {threshold}.")
        rule = rule_of(memory, loss="huber", per_channel=per_channel)
        super().__init__(width, heads, inner, memory, rule, provider, thresholds=threshold is None)
        self.fixed_threshold = threshold
        if threshold is None:
            torch.nn.init.constant_(self.gates.bias[:heads], UNIT)

    def threshold(self, like: Tensor, logits: Tensor | None = None) -> Tensor:
        """delta [b, t, h]."""
        return torch.full_like(like, self.fixed_threshold) if logits is None else F.softplus(logits)
