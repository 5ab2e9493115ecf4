"""Memora: a memory whose weights are probabilities, kept near their old ones by the Kullback-Leibler divergence.

Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173 (MIRAS), eqs. 21, 27, 30-32 and section 5.3; no code was published.

    W_t = c softmax( alpha_t log W_{t-1} - eta_t grad 1/2 |M(k) - v|^2 )
    y_t = M_t(q_t),   M(x) = x + LN(W_2 gelu(W_1 x)),   hidden layer 4 times as wide

No momentum. As in section 5.4, the first token of a chunk alone takes this step; the chunk's others step linearly from the W_1
that it leaves, with gradients there: W_t = alpha_t W_{t-1} - eta_t grad. `memory.chunk=1` is eq. 27 at every token. Shapes as
in `models/ops/associative_memory/retention_recurrence.py`.

Where the paper is silent:

- The softmax runs over the inputs of each output, so that an output is a weighted mean of its inputs.
- `mass=None`: such a slice's sum c is the square root of its length, which keeps an output about as large as its inputs'
  length; with a sum of 1 it would shrink from layer to layer.
- `weight_floor=1e-3`: linear steps can leave a weight without a logarithm; it is taken as at least this. Lower floors let
  gradients of the logarithm grow.
- A text begins with c softmax(learned numbers), drawn normal with `spread=1`: equal weights would make all hidden units one.
- The rate is at most half of Titans' bound here (`memory.rate_bound`): at the whole of it, what two texts once differed by grows
  in some heads from chunk to chunk, rounding too, until after some thousand tokens no digit is left.
- The values' unit length and the norm's epsilon of 0.1 are those of Titans here.

Deviation: alpha and eta are one number a head, the paper's one a channel, by low-rank maps of rank 32 or 64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.law import Law
from models.ops.associative_memory.retention_rule import on_simplex
from models.registry import register
from models.titans.miras_memory import PAPERS, Miras, MirasMemory, rule_of


@register(
    "memora",
    paper="Behrouz, Razaviyayn, Zhong and Mirrokni 2025, arXiv 2504.13173",
    equation="W <- softmax(a log W - r grad |M(k) - v|^2), once a chunk;  y = M(q)",
)
class Memora(Miras):
    """The layer. State: the convolution's last inputs; W at the last anchor and the open chunk's tokens."""

    law = Law(
        forget="alpha of log W, per head, from x",
        compare="M(k) - v",
        write="-eta grad |M(k) - v|^2 to log W, then softmax",
        read="M(q)",
    )
    reading = (
        "a softmax over each output's inputs, its sum and floor; range of the rate, length of values, the drawn memory"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        mass: float | None = None,
        weight_floor: float = 1e-3,
        spread: float = 1.0,
        memory: MirasMemory = PAPERS,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        rule = rule_of(memory, retention="kl", mass=mass, weight_floor=weight_floor)
        super().__init__(width, heads, inner, memory, rule, provider)
        if memory.rate_bound is None:
            self.bound /= 2
        for logarithms in self.initial:
            torch.nn.init.normal_(logarithms, std=spread)

    def first_weights(self) -> tuple[Tensor, ...]:
        """What a text begins with, [h, in, out] per layer: positive, from learned logarithms."""
        return tuple(on_simplex(logarithms, self.rule) for logarithms in self.initial)
