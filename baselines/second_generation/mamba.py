"""Mamba: the selective state space, every channel with N states of its own.

Gu and Dao 2023, arXiv 2312.00752, Algorithm 2 and Section 3.4, with the initialisation of the authors' code:

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t x_t,   y_t = C_t h_t + D x_t
    B, C, Delta from the token; Delta = softplus(W_2 W_1 x + bias), A = -exp(A_log)

around it: gate and input projections (expansion 2), a causal convolution of 4, SiLU, and the product with silu(z). It mixes
channels itself, so the shell adds no SwiGLU and depth is solved instead. A_log and D do not decay, as in the authors' code.
Deviation: the authors' scaling of the output projection by 1 / sqrt(number of layers) is left out, since a mixer does not
know its depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import maps, step_bias
from models.layers.derived import Derived
from models.layers.selective_block import SelectiveBlock
from models.ops.flops import Flops
from models.ops.selective_scan import selective_scan
from models.ops.selective_scan.flops import selective_flops
from models.registry import register


def _decays(log: Tensor) -> Tensor:
    """-exp(log), laid out as the compiled scan reads it: channels side by side."""
    return (-log.exp()).mT.contiguous().mT


@register(
    "mamba",
    paper="Gu and Dao 2023, arXiv 2312.00752",
    equation="h <- exp(Delta A) . h + Delta B x;  y = C h + D x",
)
class Mamba(SelectiveBlock):
    """The Mamba block. State: the convolution's last inputs and h [b, d, N]."""

    law = Law(
        forget="exp(Delta A), per number, from x",
        compare="-",
        write="Delta B x",
        read="C h + D x",
    )
    period = 16  # the longest stream of the scan
    no_weight_decay = ("A_log", "D")

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
        self._decays = Derived()

    def learn(self, inner: int) -> None:
        self.step = nn.Linear(self.rank, inner)
        nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.step.bias = nn.Parameter(step_bias(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, self.states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))

    def run(self, x: Tensor, t: Tensor, k: Tensor, q: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        delta = F.softplus(maps(t, self.step, provider=self.provider)[0])
        A = self._decays(_decays, self.A_log)
        y, h = selective_scan(x, delta, A, k, q, state, provider=self.provider)
        return y + self.D * x, h

    def flops(self, time: int) -> Flops:
        """Of the selective scan."""
        return selective_flops(time, self.out.in_features, self.states)
