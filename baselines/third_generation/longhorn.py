"""Longhorn: a state space whose step is the closed form of an online regression.

Liu et al. 2024, arXiv 2407.14207, Sections 3 and 4, as the authors' code (Cranial-XIX/longhorn) has it, in Mamba's block:

    x, z = W_in u;  x = silu(conv(x));   t, k, q = W_x x;   b = sigmoid(W_t t + bias), one rate a channel
    D = b / (1 + b |k|^2)
    S[d, n] <- (1 - D_d k_n^2) S[d, n] + D_d x_d k_n,   y = S q + skip * x,   out = W_out ( y * silu(z) )

Each channel's row of S is fitted to x_d = S_d . k by one implicit step; of its full matrix 1 - D k k^T the paper keeps the
diagonal. Expansion 2, a convolution of 4, 16 states, rank width / 16; weights are drawn as torch draws them, skip is 1. It mixes
channels itself, so the shell adds no SwiGLU and depth is solved instead. skip does not decay, as in Mamba's code, from which
theirs comes.

Deviation: the released model begins with a bias of 0 and draws its output map narrower with depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.layers import at_least_float32
from models.layers.selective_block import SelectiveBlock
from models.ops.diagonal_scan import outer_scan
from models.ops.diagonal_scan.flops import outer_flops
from models.ops.flops import Flops
from models.registry import register


@register(
    "longhorn",
    paper="Liu et al. 2024, arXiv 2407.14207",
    equation="S <- (1 - D k^2) * S + D x k^T;  y = S q,  D = b / (1 + b |k|^2)",
)
class Longhorn(SelectiveBlock):
    """The Longhorn block. State: the convolution's last inputs and S [b, N, d]."""

    law = Law(
        forget="-",
        compare="S k^2, the diagonal of S k k^T",
        write="D (x k - S k^2)",
        read="S q + skip * x",
    )
    no_weight_decay = ("skip",)
    family_exception = (
        "its regression's step 1 - D k k^T is kept as its diagonal, so what is stored compares with itself alone"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 16,
        kernel: int = 4,
        provider: str = "auto",
    ):
        """`inner` is the number of channels, twice the width by default; `states` is N. `heads` is not used."""
        super().__init__(width, inner, states, kernel, provider)

    def learn(self, inner: int) -> None:
        self.rate = nn.Linear(self.rank, inner)
        self.skip = nn.Parameter(torch.ones(inner))

    def run(self, x: Tensor, t: Tensor, k: Tensor, q: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        rate, k, q = at_least_float32(self.rate(t)).sigmoid(), at_least_float32(k), at_least_float32(q)
        square = k.square()
        step = rate / (1 + rate * square.sum(-1, keepdim=True))
        y, matrix = outer_scan(step * x, step, k, square, q, state, provider=self.provider)
        return y.to(x.dtype) + self.skip.to(x.dtype) * x, matrix

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        return outer_flops(time, self.out.in_features, self.states)
