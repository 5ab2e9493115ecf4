"""RetNet: multi-scale retention, the decay fixed per head.

Sun et al. 2023, arXiv 2307.08621, eqs. 5 to 8, with the authors' code (torchscale) where the two differ:

    S <- g_h S + k v^T,   y = S^T q,   g_h = 1 - 2^(-5-h)
    out = W_o ( silu(W_g x) * norm_h(y) ),   q and k rotated, k scaled by d_k^-1/2

The norm of each head is a root-mean-square norm without gain; values are twice as wide as the model. Rotation is pure (no xPos
scaling) on a grid of angles that includes both ends. Weights are drawn as torchscale draws them: xavier, gain 2^-5/2, and 1/2
for the output. Deviation: the channel mixing is the shell's SwiGLU, as for every mixer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.law import Law
from models.layers import RMSNorm, gated, rotary, split_heads
from models.ops.flops import Flops
from models.ops.scan import scan
from models.ops.scan.flops import scan_flops
from models.registry import register


@register(
    "retnet",
    paper="Sun et al. 2023, arXiv 2307.08621",
    equation="S <- g_h S + k v^T;  y = S^T q,  g_h = 1 - 2^(-5-h)",
)
class RetNet(nn.Module):
    """Retention. State: the matrix [b, h, k, v] and the place in the text, for the rotation."""

    law = Law(
        forget="g_h, per head, fixed",
        compare="-",
        write="k v^T",
        read="S^T q",
    )
    period = 64  # the chunk of the chunked form
    fixed_state = True

    def __init__(self, width: int, heads: int, inner: int | None = None, provider: str = "auto"):
        """`inner` is the width of the values over all heads, twice the model's by default."""
        super().__init__()
        inner = 2 * width if inner is None else inner
        self.heads, self.provider = heads, provider
        self.queries, self.keys = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.values, self.gate = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.norm = RMSNorm(inner // heads, weight=False)
        for layer in (self.queries, self.keys, self.values, self.gate):
            nn.init.xavier_uniform_(layer.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out.weight, gain=2**-1)
        decay = torch.log1p(-(2.0 ** (-5 - torch.arange(heads, dtype=torch.float64))))
        self.register_buffer("log_decay", decay, persistent=False)
        half = width // heads // 2
        self.register_buffer("frequency", 10000.0 ** -torch.linspace(0, 1, half, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, state: tuple[Tensor, int] | None = None) -> tuple[Tensor, tuple[Tensor, int]]:
        matrix, start = (None, 0) if state is None else state
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.queries, self.keys, self.values))
        q = rotary(q, start, self.frequency)
        k = rotary(k, start, self.frequency) * k.shape[-1] ** -0.5
        decay = self.log_decay.to(torch.promote_types(x.dtype, torch.float32)).expand(x.shape[0], x.shape[1], -1)
        y, matrix = scan(q, k, v, log_forget=decay, state=matrix, provider=self.provider)
        y = gated(self.norm(y).flatten(2), self.gate(x), self.provider)
        return self.out(y), (matrix, start + x.shape[1])

    def flops(self, time: int) -> Flops:
        """Of the scan."""
        keys, values = (layer.out_features // self.heads for layer in (self.keys, self.values))
        return scan_flops(time, self.heads, keys, values)
