"""Moneta: a memory that minimises the p-norm of its error and is retained by a q-norm.

Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173 (MIRAS), eqs. 24, 25 and sections 5.3, 5.4; no code was published.

    A_t = alpha_t A_{t-1} - eta_t grad |M(k) - v|_p^p,   W_t = A_t / |A_t|_q^(q - 2),   p = 3, q = 4
    y_t = M_t(q_t),   M(x) = x + LN(W_2 gelu(W_1 x)),   hidden layer 4 times as wide

No momentum. In the gradient sign(e) is tanh(10 e) and |e| is sqrt(e^2 + 1e-6) (section 5.4). A is carried; gradients are those at
the memory of the last chunk's end, and within a chunk W is linear in A: the norm is taken anew after a chunk's last token.
Shapes as in `models/ops/associative_memory/retention_recurrence.py`.

Where the paper is silent:

- |A|_q is that of each layer's whole matrix in a head.
- `norm_floor=1`: |A|_q is taken as at least this. With q = 4 the division is by a square: an A that forgetting makes small would
  explode. At 1, W is A itself while |A|_q is below, and never longer than 1 in that norm, nor than A.
- The factor p of the gradient is part of the rate, as Titans' 2 is: p = 2, q = 2 and `smooth=False` are Titans' step without
  momentum.
- The range of the rate, the values' unit length, the norm's epsilon of 0.1 and the drawn memory are those of Titans here.

Deviation: alpha and eta are one number a head, the paper's one a channel, by low-rank maps of rank 32 or 64.
"""

from __future__ import annotations

from models.law import Law
from models.registry import register
from models.titans.miras_memory import PAPERS, Miras, MirasMemory, rule_of


@register(
    "moneta",
    paper="Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173",
    equation="A <- a A - r grad |M(k) - v|_p^p;  W = A / |A|_q^(q-2);  y = M(q)",
)
class Moneta(Miras):
    """The layer. State: the convolution's last inputs; A at the last anchor and the open chunk's tokens."""

    law = Law(
        forget="alpha, per head, from x",
        compare="M(k) - v",
        write="-eta grad |M(k) - v|_p^p to A, W = A / |A|_q^(q-2)",
        read="M(q)",
    )
    reading = "a floor of the q-norm, taken of each layer's whole matrix; range of the rate, length of values, the drawn memory"

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        p: float = 3.0,
        q: float = 4.0,
        norm_floor: float = 1.0,
        smooth: bool = True,
        memory: MirasMemory = PAPERS,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        sharpness = 10.0 if smooth else None
        retained = {"retention": "lq", "norm": q, "norm_floor": norm_floor}
        rule = rule_of(memory, loss="lp", power=p, sharpness=sharpness, **retained)
        super().__init__(width, heads, inner, memory, rule, provider)
