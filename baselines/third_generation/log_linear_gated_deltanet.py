"""Log-linear Gated DeltaNet: as many delta-rule states as the text's length has binary digits, each age read with its own weight.

Guo, Yang, Goel, Xing, Dao, Kim 2025, arXiv 2506.04761, Section 3, on Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464):

    S^(l) <- a S^(l),  S^(l) <- S^(l) - b k k^T S^(l) for all levels l, merged as a binary counter counts, then S^(0) = b k v^T
    y = sum_l w^(l) S^(l)^T q,   w = softplus(L * W_l x);   out = W_o ( norm_h(y) * silu(W_g x) )
    a = exp(-exp(A_log) softplus(W_a x + bias)), b = sigmoid(W_b x + bias)

W_l gives h * levels numbers, L begins at 1. All else is Gated DeltaNet as in `gated-deltanet`: q, k = l2(silu(conv(W x))), v =
silu(conv(W_v x)), their widths and initialisation. 15 levels tell texts of up to 16,384 tokens apart; what is older stays in
the last. A_log, L and the bias of the step do not decay.

Deviations: those of `gated-deltanet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, convolved_heads, split_heads, step_bias
from models.ops.flops import Flops
from models.ops.log_linear import log_linear
from models.ops.log_linear.flops import log_linear_flops
from models.registry import register


@register(
    "log-linear-gated-deltanet",
    paper="Guo et al. 2025, arXiv 2506.04761",
    equation="S^l <- a (I - b k k^T) S^l, merged by age;  S^0 = b k v^T;  y = sum_l w^l S^l^T q",
)
class LogLinearGatedDeltaNet(nn.Module):
    """The log-linear gated delta-rule layer. State: the convolution's inputs, buckets [b, h, levels - 1, k, v], a count."""

    law = Law(
        forget="a, per head, from x; levels merge by age",
        compare="S^l^T k, every level",
        write="b k v^T to level 0, -b k k^T S^l to all",
        read="sum_l w^l S^l^T q",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True
    no_weight_decay = ("A_log", "L", "step_bias")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        levels: int = 15,
        kernel: int = 4,
        provider: str = "auto",
    ):
        """`inner` is the width of queries and keys over all heads, 3/4 of the model's by default; values have twice that."""
        super().__init__()
        inner = max(1, 3 * width // (4 * heads)) * heads if inner is None else inner
        if levels < 2:
            raise ValueError(f"Log-linear Gated DeltaNet needs at least 2 levels, not {levels}; raise levels.")
        self.heads, self.provider, self.widths = heads, provider, [inner, inner, 2 * inner]
        self.qkv = nn.Linear(width, 4 * inner, bias=False)
        self.convolution = ShortConvolution(4 * inner, kernel, provider=provider)
        self.step, self.rate = nn.Linear(width, heads, bias=False), nn.Linear(width, heads)
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        self.step_bias = nn.Parameter(step_bias(heads))
        self.weigh = nn.Linear(width, heads * levels, bias=False)
        self.L = nn.Parameter(torch.ones(heads, levels))
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.norm = RMSNorm(2 * inner // heads, eps=1e-5)
        self.out = nn.Linear(2 * inner, width, bias=False)
        nn.init.zeros_(self.rate.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, int] | None = None):
        """y [b, t, width] and the state."""
        tail, begun = (None, None) if state is None else (state[0], state[1:])
        scale = (self.widths[0] // self.heads) ** -0.5
        (q, k, v), tail = convolved_heads(self.convolution, self.qkv(x), tail, self.widths, self.heads, 2, scale)
        step, rate = at_least_float32(self.step(x)), at_least_float32(self.rate(x))
        y, (buckets, count) = log_linear(
            q,
            k,
            v,
            F.softplus(self.L * at_least_float32(split_heads(self.weigh(x), self.heads))),
            log_forget=-self.A_log.exp() * F.softplus(step + self.step_bias),
            rate=rate.sigmoid(),
            compare=True,
            state=begun,
            provider=self.provider,
        )
        return self.out(self.norm(y).flatten(2) * F.silu(self.gate(x))), (tail, buckets, count)

    def flops(self, time: int) -> Flops:
        """Of log-linear attention."""
        keys, _, values = (width // self.heads for width in self.widths)
        return log_linear_flops(time, self.heads, keys, values, compare=True)
