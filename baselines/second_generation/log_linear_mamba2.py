"""Log-linear Mamba-2: as many states as the text's length has binary digits, each age read with its own weight.

Guo, Yang, Goel, Xing, Dao, Kim 2025, arXiv 2506.04761, Section 3, on Mamba-2 (Dao and Gu 2024, arXiv 2405.21060):

    S^(l)_t = a_t S^(l)_{t-1} for all levels l, merged as a binary counter counts, then level 0 = Delta_t B_t x_t^T
    y_t = sum_l w_t^(l) C_t S^(l)_t + D x_t,   w_t = softplus(L * W_l u_t),   a_t = exp(-exp(A_log) Delta_t)
    Delta = softplus(. + bias);   out = W_o norm( y * silu(z) )

u_t is the layer's input. One projection gives z, x, B, C, Delta and the levels' weights, h * levels numbers; L begins at 1. All
else is Mamba-2 as in `mamba2`: convolution of 4 and SiLU over x, B and C, which all heads share; it mixes channels itself, and
depth is solved. 15 levels tell texts of up to 16,384 tokens apart; what is older stays in the last. A_log, D, L and the bias
of Delta do not decay.

Deviations: the authors build on flash-linear-attention's Mamba-2 (biases in the projections, none in the convolution, A from 1
to h); here it is the house's, so that levels are all that differs. Those of `mamba2`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, convolved_parts, gated, split_heads, step_bias
from models.ops.flops import Flops
from models.ops.log_linear import log_linear
from models.ops.log_linear.flops import log_linear_flops
from models.registry import register


@register(
    "log-linear-mamba2",
    paper="Guo et al. 2025, arXiv 2506.04761",
    equation="S^l <- a S^l, merged by age;  S^0 = Delta B x^T;  y = sum_l w^l S^l^T C + D x",
)
class LogLinearMamba2(nn.Module):
    """The log-linear Mamba-2 block. State: the convolution's inputs, buckets [b, h, levels - 1, N, head width], a count."""

    law = Law(
        forget="a, per head, from x; levels merge by age",
        compare="-",
        write="Delta B x^T to level 0",
        read="sum_l w^l S^l^T C + D x",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    mixes_channels = True
    state_setting = "states"
    no_weight_decay = ("A_log", "D", "L", "step_bias")
    family_exception = (
        "its decay is one number a head and token as Mamba-2's, but states are added up as they grow older: numbers move "
        "from level to level without a comparison"
    )

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        states: int = 128,
        levels: int = 15,
        kernel: int = 4,
        provider: str = "auto",
    ):
        """`inner` is the width of x over all heads, twice the model's by default; `states` is N."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        if levels < 2:
            raise ValueError(f"Log-linear Mamba-2 needs at least 2 levels, not {levels}; raise levels.")
        self.provider, self.heads, self.states, self.inner, self.levels = provider, heads, states, inner, levels
        self.widths = [inner, inner + 2 * states, heads, heads * levels]
        self.project = nn.Linear(width, sum(self.widths), bias=False)
        self.convolution = ShortConvolution(inner + 2 * states, kernel, bias=True, provider=provider)
        self.step_bias = nn.Parameter(step_bias(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.L = nn.Parameter(torch.ones(heads, levels))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner, eps=1e-5)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None = None):
        """y [b, t, width] and the state."""
        tail, begun = (None, None) if state is None else (state[0], state[1:])
        z, x, step, weights = self.project(x).split(self.widths, dim=-1)
        (x, B, C), tail = convolved_parts(self.convolution, x, tail, [self.inner, self.states, self.states])
        delta = F.softplus(at_least_float32(step) + self.step_bias)
        weights = F.softplus(self.L * at_least_float32(split_heads(weights, self.heads)))
        x = split_heads(x, self.heads)
        y, (buckets, count) = log_linear(
            C[:, :, None],
            B[:, :, None],
            x,
            weights,
            log_forget=-self.A_log.exp() * delta,
            rate=delta,
            state=begun,
            provider=self.provider,
        )
        y = (y + self.D[:, None] * x).flatten(2)
        return self.out(self.norm(gated(y, z, self.provider))), (tail, buckets, count)

    def flops(self, time: int) -> Flops:
        """Of log-linear attention."""
        return log_linear_flops(time, self.heads, self.states, self.inner // self.heads)
