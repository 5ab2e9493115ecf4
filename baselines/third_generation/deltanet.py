"""DeltaNet: the delta rule; each key's old value is replaced, not added to.

Yang et al. 2024, arXiv 2406.06484, after Schlag et al. 2021, arXiv 2102.11174, with the published layer's defaults:

    S <- S + b k (v - S^T k)^T,   y = S^T q
    q, k = l2(silu(conv(W x))), v = silu(conv(W_v x)), b = sigmoid(W_b x), q scaled by d_k^-1/2, RMSNorm per head before W_o

`negative_eigenvalues` doubles b (Grazzi et al. 2024, arXiv 2411.12537), so that the transition's eigenvalues reach -1.

Weights are drawn as `nn.Linear` draws them, as in the layer of flash-linear-attention (0.6.0), the authors' code; its own
initialisation (xavier, gain 2^-5/2), which the paper's models had, went in March 2025.

Deviation: the library's whole model draws all weights anew, normal with 0.02; here the layer stays as it is made.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.law import Law
from models.layers import RMSNorm, ShortConvolution, convolved_heads, maps
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


@register(
    "deltanet",
    paper="Yang et al. 2024, arXiv 2406.06484",
    equation="S <- S + b k (v - S^T k)^T;  y = S^T q",
)
class DeltaNet(nn.Module):
    """The delta-rule layer. State: the convolutions' last inputs and S [b, h, k, v]."""

    law = Law(
        forget="-",
        compare="S^T k",
        write="b k (v - S^T k)^T",
        read="S^T q",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        negative_eigenvalues: bool = False,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__()
        inner = width if inner is None else inner
        self.highest_rate = 2.0 if negative_eigenvalues else 1.0
        self.heads, self.provider = heads, provider
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.convolution = ShortConvolution(3 * inner, kernel, provider=provider)
        self.rate = nn.Linear(width, heads, bias=False)
        self.norm = RMSNorm(inner // heads, eps=1e-5, provider=provider)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, matrix = (None, None) if state is None else state
        qkv, rate = maps(x, self.qkv, self.rate, provider=self.provider)
        inner = self.out.in_features
        scale = (inner // self.heads) ** -0.5
        (q, k, v), tail = convolved_heads(self.convolution, qkv, tail, [inner] * 3, self.heads, 2, scale)
        rate = self.highest_rate * rate.sigmoid()
        y, matrix = scan(q, k, v, rate=rate, compare=True, state=matrix, provider=self.provider)
        return maps(self.norm(y).flatten(2), self.out, provider=self.provider)[0], (tail, matrix)

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        width = self.out.in_features // self.heads
        return scan_flops(time, self.heads, width, width, compare=True)
