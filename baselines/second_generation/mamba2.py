"""Mamba-2: the state space dual, one decay a head.

Dao and Gu 2024, arXiv 2405.21060, Sections 6 and 7, with the initialisation of the authors' code:

    S_t = a_t S_{t-1} + Delta_t B_t x_t^T,   y_t = S_t C_t + D x_t
    a_t = exp(-exp(A_log) Delta_t),   Delta = softplus(. + bias);   out = W_o norm( y * silu(z) )

One projection gives z, x, B, C and Delta; x, B and C pass a causal convolution of 4 and SiLU; B and C are shared by all
heads. It mixes channels itself, so the shell adds no SwiGLU and depth is solved instead. A_log, D and the bias of Delta do
not decay, as in the authors' code. Deviations: head width is `inner / heads` of the common size (the authors fix 64), so that
the inner width can be matched finely; the authors' scaling of the output projection by 1 / sqrt(number of layers) is left
out, since a mixer does not know its depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import (
    RMSNorm,
    ShortConvolution,
    at_least_float32,
    convolved_parts,
    gated,
    maps,
    split_heads,
    step_bias,
)
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


@register(
    "mamba2",
    paper="Dao and Gu 2024, arXiv 2405.21060",
    equation="S <- a S + Delta B x^T;  y = S^T C + D x,  a = exp(-exp(A) Delta)",
)
class Mamba2(nn.Module):
    """The Mamba-2 block. State: the convolution's last inputs and S [b, h, N, head width]."""

    law = Law(
        forget="a, per head, from x",
        compare="-",
        write="Delta B x^T",
        read="S^T C + D x",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    mixes_channels = True
    state_setting = "states"
    no_weight_decay = ("A_log", "D", "step_bias")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 128,
        kernel: int = 4,
        provider: str = "auto",
    ):
        """`inner` is the width of x over all heads, twice the model's by default; `states` is N."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        self.provider, self.heads, self.states, self.inner = provider, heads, states, inner
        self.project = nn.Linear(width, 2 * inner + 2 * states + heads, bias=False)
        self.convolution = ShortConvolution(inner + 2 * states, kernel, bias=True, provider=provider)
        self.step_bias = nn.Parameter(step_bias(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner, eps=1e-5, provider=provider)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, matrix = (None, None) if state is None else state
        z, x, step = maps(x, self.project, provider=self.provider)[0].split(
            [self.inner, self.inner + 2 * self.states, self.heads], dim=-1
        )
        (x, B, C), tail = convolved_parts(self.convolution, x, tail, [self.inner, self.states, self.states])
        delta = F.softplus(at_least_float32(step) + self.step_bias)
        x = split_heads(x, self.heads)
        y, matrix = scan(
            C[:, :, None],
            B[:, :, None],
            x,
            log_forget=-self.A_log.exp() * delta,
            rate=delta,
            state=matrix,
            provider=self.provider,
        )
        y = (y + self.D[:, None] * x).flatten(2)
        y = self.norm(gated(y, z, self.provider))
        return maps(y, self.out, provider=self.provider)[0], (tail, matrix)

    def flops(self, time: int) -> Flops:
        """Of the scan, whose heads share B and C."""
        return scan_flops(time, self.heads, self.states, self.inner // self.heads, shared_keys=True)
