"""Comba: a delta rule in a closed loop; what is compared is a weakened key, before the state forgets, and the query is corrected.

Hu et al. 2025, arXiv 2506.02475, with the layer of flash-linear-attention (0.6.0):

    p = b k,   q <- q - d p,   S' = a S + r k (v - S^T p)^T,   y = S'^T q
    b = sigmoid(decay) and d one number a head, r = sigmoid(W_r x), a = exp(-exp(A_log) softplus(W_a x + bias))
    out = W_o ( norm_h(y) * sigmoid(W_g x) )

The comparison sees the state as it was before forgetting (the paper's S (a - r p k^T), and the authors' kernels). q, k =
silu(conv(W x)) of 3/4 width, v = silu(conv(W_v x)) of 3/2 width; q is corrected and then normed to length 1, as k is, and
scaled by d_k^-1/2. decay and d are 1 at first; `correction` = 0.02 is what the authors advise for small models.

The released kernel norms p as well, so that b has no effect on the comparison; here b weakens it, as the paper has it, and
`normed_comparison` is the released behaviour.

Deviations: exp(A_log) is drawn from 0.001 to 16, theirs from 0, whose logarithm is not finite; linear maps are drawn as
`nn.Linear` draws them, by the library's whole models normal with 0.02.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, at_least_float32, l2_norm, split_heads, step_bias
from models.ops.erase_and_write import erase_and_write
from models.ops.erase_and_write.flops import erase_and_write_flops
from models.ops.flops import Flops
from models.registry import register


@register(
    "comba",
    paper="Hu et al. 2025, arXiv 2506.02475",
    equation="S' = a S + r k (v - S^T p)^T,  p = b k;  y = S'^T (q - d p)",
)
class Comba(nn.Module):
    """The Comba layer. State: the convolution's last inputs and S [b, h, k, v]."""

    law = Law(
        forget="a, per head, from x",
        compare="S^T p, before forgetting, p = b k",
        write="r k (v - S^T p)^T",
        read="S^T (q - d p)",
    )
    period = 64
    fixed_state = True
    no_weight_decay = ("A_log", "step_bias", "decay", "correction")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        correction: float = 1.0,
        normed_comparison: bool = False,
        provider: str = "auto",
    ):
        """`inner` is the width of queries and keys over all heads, 3/4 of the model's by default; values have twice that.

        `correction` is d at first.
        """
        super().__init__()
        inner = max(1, 3 * width // (4 * heads)) * heads if inner is None else inner
        if inner % heads:
            raise ValueError(f"The inner width {inner} must be a multiple of the {heads} heads; change inner or heads.")
        self.heads, self.provider, self.widths = heads, provider, [inner, inner, 2 * inner]
        self.normed_comparison = normed_comparison
        self.qkv = nn.Linear(width, 4 * inner, bias=False)
        self.convolution = ShortConvolution(4 * inner, kernel, provider=provider)
        self.step, self.rate = (nn.Linear(width, heads, bias=False) for _ in range(2))
        self.decay = nn.Parameter(torch.ones(heads))
        self.correction = nn.Parameter(torch.full((heads,), correction))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        self.step_bias = nn.Parameter(step_bias(heads))
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.norm = RMSNorm(2 * inner // heads, eps=1e-5)
        self.out = nn.Linear(2 * inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, matrix = (None, None) if state is None else state
        qkv, tail = self.convolution(self.qkv(x), tail)
        q, k, v = (split_heads(part, self.heads) for part in F.silu(qkv).split(self.widths, dim=-1))
        weakened = self.decay.sigmoid()[:, None]
        q = l2_norm(q - self.correction[:, None] * weakened * k) * q.shape[-1] ** -0.5
        k = l2_norm(k)
        rate = at_least_float32(self.rate(x)).sigmoid()
        y, matrix = erase_and_write(
            q,
            k if self.normed_comparison else weakened * k,
            rate[..., None] * k,
            v,
            log_forget=-self.A_log.exp() * F.softplus(at_least_float32(self.step(x)) + self.step_bias),
            before=True,
            state=matrix,
            provider=self.provider,
        )
        y = self.norm(y).flatten(2) * self.gate(x).sigmoid()
        return self.out(y), (tail, matrix)

    def flops(self, time: int) -> Flops:
        """Of the recurrence."""
        keys, _, values = (width // self.heads for width in self.widths)
        return erase_and_write_flops(time, self.heads, keys, values)
