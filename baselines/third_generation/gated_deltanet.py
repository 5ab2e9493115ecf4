"""Gated DeltaNet: the delta rule on a state that first forgets.

Yang, Kautz, Hatamizadeh 2024, arXiv 2412.06464, eq. 10 and Section 3.3, as the authors' code (NVlabs/GatedDeltaNet) has it:

    S <- a S,   S <- S + b k (v - S^T k)^T,   y = S^T q
    a = exp(-exp(A_log) softplus(W_a x + bias)), b = sigmoid(W_b x + bias); out = W_o ( norm_h(y) * silu(W_g x) )

q, k = l2(silu(conv(W x))) of 3/4 width, v = silu(conv(W_v x)) of 3/2 width, q scaled by d_k^-1/2. Norm, then gate. Weights are
drawn as `nn.Linear` draws them, the bias of b is 0 at first. A_log and its bias are marked there as not decaying.
flash-linear-attention's layer (0.6.0) draws alike since March 2025 and has no bias in b, nor has Qwen3-Next's.

`negative_eigenvalues` doubles b (Grazzi et al. 2024, arXiv 2411.12537), so that the transition's eigenvalues reach -a.

Deviation: exp(A_log) is drawn from 0.001 to 16, theirs from 0, whose logarithm is not finite.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, convolved_heads, gated, maps, step_bias
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


@register(
    "gated-deltanet",
    paper="Yang, Kautz and Hatamizadeh 2024, arXiv 2412.06464",
    equation="S <- a S;  S <- S + b k (v - S^T k)^T;  y = S^T q",
)
class GatedDeltaNet(nn.Module):
    """The gated delta-rule layer. State: the convolution's last inputs and S [b, h, k, v]."""

    law = Law(
        forget="a, per head, from x",
        compare="S^T k",
        write="b k (v - S^T k)^T",
        read="S^T q",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    no_weight_decay = ("A_log", "step_bias")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        negative_eigenvalues: bool = False,
        provider: str = "auto",
    ):
        """`inner` is the width of queries and keys over all heads, 3/4 of the model's by default; values have twice that."""
        super().__init__()
        inner = max(1, 3 * width // (4 * heads)) * heads if inner is None else inner
        self.heads, self.provider, self.widths = heads, provider, [inner, inner, 2 * inner]
        self.highest_rate = 2.0 if negative_eigenvalues else 1.0
        self.qkv = nn.Linear(width, 4 * inner, bias=False)
        self.convolution = ShortConvolution(4 * inner, kernel, provider=provider)
        self.step, self.rate = nn.Linear(width, heads, bias=False), nn.Linear(width, heads)
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        self.step_bias = nn.Parameter(step_bias(heads))
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.norm = RMSNorm(2 * inner // heads, eps=1e-5, provider=provider)
        self.out = nn.Linear(2 * inner, width, bias=False)
        nn.init.zeros_(self.rate.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, matrix = (None, None) if state is None else state
        qkv, step, rate, gate = maps(x, self.qkv, self.step, self.rate, self.gate, provider=self.provider)
        scale = (self.widths[0] // self.heads) ** -0.5
        (q, k, v), tail = convolved_heads(self.convolution, qkv, tail, self.widths, self.heads, 2, scale)
        step, rate = at_least_float32(step), at_least_float32(rate)
        log_forget = -self.A_log.exp() * F.softplus(step + self.step_bias)
        rate = self.highest_rate * rate.sigmoid()
        y, matrix = scan(q, k, v, log_forget=log_forget, rate=rate, compare=True, state=matrix, provider=self.provider)
        y = gated(self.norm(y).flatten(2), gate, self.provider)
        return maps(y, self.out, provider=self.provider)[0], (tail, matrix)

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        keys, _, values = (width // self.heads for width in self.widths)
        return scan_flops(time, self.heads, keys, values, compare=True)
