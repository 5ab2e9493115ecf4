"""GLA: linear attention that forgets per key channel, at a rate computed from the input.

Yang et al. 2023, arXiv 2312.06635, Section 4.4. Two layers are published by the authors; this is the one that they keep up,
`GatedLinearAttention` of flash-linear-attention (0.6.0), whole, with its defaults:

    S <- diag(a) S + k v^T,   y = S^T q,   a = sigmoid(W_2 W_1 x + bias)^(1/16)
    out = W_o ( norm_h(y) * silu(W_r x) )

q and k have half the width of v, q is scaled by d_k^-1/2, the gate's product has rank 16; no convolution, no feature map. The
norm of each head is a root-mean-square norm whose gain all heads share. Weights are drawn as `nn.Linear` draws them: the
layer's own initialisation (xavier, gain 2^-5/2) went in March 2025.

The other, berlino/gated_linear_attention as of the paper, has a bias on the output gate, LayerNorm without gain, k scaled by
the head width of the values, and xavier for q, k and the gate; it is not this one.

Deviation: the library's whole model draws all weights anew, normal with 0.02; here the layer stays as it is made.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import RMSNorm, at_least_float32, gated, split_heads
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


@register(
    "gla",
    paper="Yang et al. 2023, arXiv 2312.06635",
    equation="S <- diag(a) S + k v^T;  y = S^T q,  a = sigmoid(W_2 W_1 x + c)^(1/16)",
)
class GLA(nn.Module):
    """Gated linear attention. State: the matrix [b, h, k, v]."""

    law = Law(
        forget="a, per key channel, from x",
        compare="-",
        write="k v^T",
        read="S^T q",
    )
    period = 64  # no chunk of the chunked form is longer
    fixed_state = True

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        rank: int = 16,
        temperature: float = 16.0,
        provider: str = "auto",
    ):
        """`inner` is the width of the values over all heads, the model's by default; queries and keys have half of it.

        Gates are the `temperature`-th root of a sigmoid (the paper's tau), so that they begin near 1.
        """
        super().__init__()
        inner = width if inner is None else inner
        if inner % (2 * heads):
            raise ValueError(f"GLA's inner width {inner} must be a multiple of twice its {heads} heads; change inner.")
        if rank < 1 or temperature <= 0:
            raise ValueError(f"GLA needs rank >= 1 and temperature > 0, not {rank} and {temperature}.")
        self.heads, self.temperature, self.provider = heads, temperature, provider
        self.widths = [inner // 2, inner // 2, inner]
        self.qkv = nn.Linear(width, 2 * inner, bias=False)
        self.forget = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, inner // 2))
        self.gate = nn.Linear(width, inner, bias=False)
        self.norm = RMSNorm(inner // heads, eps=1e-5)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor]]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).split(self.widths, dim=-1))
        log_forget = F.logsigmoid(at_least_float32(split_heads(self.forget(x), self.heads))) / self.temperature
        y, matrix = scan(
            q * q.shape[-1] ** -0.5,
            k,
            v,
            log_forget=log_forget,
            state=None if state is None else state[0],
            provider=self.provider,
        )
        return self.out(gated(self.norm(y).flatten(2), self.gate(x), self.provider)), (matrix,)

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        keys, _, values = (width // self.heads for width in self.widths)
        return scan_flops(time, self.heads, keys, values, per_channel=True)
