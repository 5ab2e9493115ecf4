"""ReBased: linear attention by a parabola whose minimum is learned.

Aksenov et al. 2024, arXiv 2402.10644, as the authors' code (corl-team/rebased) has it:

    q, k <- LN_q(W_q x), LN_k(W_k x),   w_ts = (q_t . k_s)^2 / f,   y_t = W_o sum_{s<=t} w_ts v_s / (sum_{s<=t} w_ts + 1e-12)

q and k have f = `feature` numbers a head, v has inner / heads. Each LayerNorm has a gain and a bias: the bias moves the
parabola's minimum, where Based's Taylor series has its own fixed at -1. `norm="all"`, the authors', takes the mean over the
numbers of all heads, before they are parted; `norm="head"`, flash-linear-attention's, over one head's, with one gain and one
bias for q, k and all heads. Weights are products of the f (f + 1) / 2 distinct numbers of q (x) q.

The published model alternates with short convolutions; the mixer alone has no positions. `conv` is the kernel of a short
convolution of ours over q, k and v, off by default.

Deviations: f is 8, theirs 16; weights are drawn as the reference Transformer's, N(0, 1 / width) and half of that deviation for
the output, since torch's own, which the authors leave, begin to learn twice as late.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from models.law import Law
from models.layers import ShortConvolution, at_least_float32, layer_norm, split_heads
from models.ops.flops import Flops
from models.ops.kernel_attention import kernel_attention
from models.ops.kernel_attention.flops import kernel_attention_flops
from models.registry import register

EPSILON = 1e-12  # beside the sum of weights, which may be as small


@register(
    "rebased",
    paper="Aksenov et al. 2024, arXiv 2402.10644",
    equation="y_t = sum_{s<=t} w_ts v_s / sum w_ts,  w_ts = (q_t . k_s)^2 / f,  q and k behind a LayerNorm",
)
class ReBased(nn.Module):
    """The ReBased layer. State: the convolution's last inputs if it has one, and the mean of phi(k) [v | 1] [b, h, F, d + 1]."""

    period = 64  # the chunk of the chunked form
    fixed_state = True
    state_setting = "feature"
    law = Law(forget="-", compare="-", write="phi(k) [v | 1]^T", read="S^T phi(q) / (z . phi(q)), phi(x) = x (x) x")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        feature: int = 8,
        norm: Literal["all", "head"] = "all",
        conv: int = 0,
        provider: str = "auto",
    ):
        """`inner` is the width of values over all heads, the model's by default; `feature` that of one query or key."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads or feature < 1 or conv < 0:
            raise ValueError(
                f"ReBased needs inner ({inner}) to be a multiple of heads ({heads}), feature >= 1 and conv >= 0."
            )
        if norm not in ("all", "head"):
            raise ValueError(f"Unknown norm '{norm}'; choose all or head.")
        self.heads, self.feature, self.norm, self.provider = heads, feature, norm, provider
        self.widths = [heads * feature, heads * feature, inner]
        self.qkv = nn.Linear(width, sum(self.widths), bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.convolution = ShortConvolution(sum(self.widths), conv, provider=provider) if conv else None
        self.query_norm = nn.LayerNorm(heads * feature if norm == "all" else feature)
        self.key_norm = nn.LayerNorm(heads * feature) if norm == "all" else None
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        tail, sums = (None, None) if state is None else state
        qkv = self.qkv(x)
        if self.convolution is not None:
            qkv, tail = self.convolution(qkv, tail)
        q, k, v = qkv.split(self.widths, dim=-1)
        q, k = self._normed(q, self.query_norm), self._normed(k, self.key_norm or self.query_norm)
        q = q * self.feature**-0.5
        y, sums = kernel_attention(
            q, k, split_heads(v, self.heads), kernel="square", plus=EPSILON, state=sums, provider=self.provider
        )
        return self.out(y.flatten(2)), (tail, sums)

    def _normed(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """[b, t, h f] -> [b, t, h, f] behind the norm, in float32: weights may be tiny, and are squares."""
        x = at_least_float32(x)
        if self.norm == "all":
            return split_heads(layer_norm(x, norm), self.heads)
        return layer_norm(split_heads(x, self.heads), norm)

    def flops(self, time: int) -> Flops:
        """Of the sums."""
        return kernel_attention_flops(time, self.heads, self.feature, self.widths[2] // self.heads, "square")
