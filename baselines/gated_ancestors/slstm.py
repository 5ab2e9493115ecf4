"""sLSTM: an LSTM with an exponential input gate, a normaliser, and units that hear those of their own head alone.

Beck et al. 2024, arXiv 2405.04517, Section 2.2 and Appendix A, as the authors' code (package xlstm 2.0.6) has the block:

    C <- f C + i z,   N <- f N + i,   h <- o C / N;   f, o = sigmoid(.), i = exp(.), z = tanh(.) of W n + R h + b
    u = x + norm_h(h),   n = LN(x);   block = u + W_down( gelu(W_gate LN(u)) * W_up LN(u) )

i and f read silu(conv(n)), z and o read n; W and R are block-diagonal, a block a head. The feed-forward layer's factor is 1.3.
LN has a gain and no bias, norm_h is one for each head. Initialisation is theirs: R 0; W normal with sqrt(2 / (5 d)), W_down with
2 / (L sqrt(d)); b_f = 5 - 12 (j / (k - 1))^(0.3 + 1.3 l / (L - 1)) for unit j of k of a head in layer l of L, other biases 0.
R and biases do not decay, as in their code.

Deviation: the feed-forward width is a multiple of 8, theirs of 64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import ShortConvolution, head_norm, split_heads
from models.ops.flops import Flops, product_flops
from models.ops.recurrent_cell import recurrent_cell
from models.ops.recurrent_cell.flops import recurrent_cell_flops
from models.registry import register


@register(
    "slstm",
    paper="Beck et al. 2024, arXiv 2405.04517",
    equation="C <- f C + e^i z;  N <- f N + e^i;  h <- o C / N;  f, i, o, z from x and h",
)
class SLSTM(nn.Module):
    """The sLSTM block. State: the convolution's last inputs, and h, c, n and m [b, 4, d]."""

    law = Law(
        forget="f, per unit, from x and h",
        compare="-",
        write="e^i z to C, e^i to N",
        read="o C / N",
    )
    period = 1
    fixed_state = True
    norms_itself = True
    mixes_channels = True
    no_weight_decay = ("recurrent", "bias")
    with_weight_decay = ("inputs",)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        index: int = 0,
        depth: int = 1,
        provider: str = "auto",
    ):
        """`inner` is the width of the feed-forward layer, 1.3 times the model's by default."""
        super().__init__()
        if width % heads:
            raise ValueError(f"The sLSTM's width {width} must be a multiple of its {heads} heads; change one of them.")
        inner = 8 * math.ceil(1.3 * width / 8) if inner is None else inner
        units = width // heads
        self.heads, self.provider = heads, provider
        self.norm, self.feed_norm = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.convolution = ShortConvolution(width, kernel, bias=True, provider=provider)
        self.inputs = nn.Parameter(torch.empty(2, heads, 2 * units, units))  # input and forget; candidate and output
        self.recurrent = nn.Parameter(torch.zeros(heads, 4 * units, units))  # input, forget, candidate, output
        self.bias = nn.Parameter(torch.zeros(4, heads, units))
        self.head_norm = nn.GroupNorm(heads, width)
        self.head_norm.bias = None
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        for weight in (self.inputs, self.gate_up.weight):
            nn.init.normal_(weight, std=math.sqrt(2 / (5 * width)))
        nn.init.normal_(self.down.weight, std=2 / (depth * math.sqrt(width)))
        with torch.no_grad():
            place = torch.arange(units) / max(1, units - 1)
            self.bias[1] = 5 - 12 * place ** (0.3 + 1.3 * index / max(1, depth - 1))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, cell = (None, None) if state is None else state
        normed = self.norm(x)
        convolved, tail = self.convolution(normed, tail)
        y, cell = recurrent_cell(
            self._sums(normed, F.silu(convolved)),
            None,
            self.recurrent,
            cell="slstm",
            bias=self.bias.flatten(),
            state=cell,
            provider=self.provider,
        )
        y = head_norm(split_heads(y, self.heads), self.head_norm)
        gate, up = self.gate_up(self.feed_norm(x + y)).chunk(2, dim=-1)
        return y + self.down(F.gelu(gate) * up), (tail, cell)

    def _sums(self, x: Tensor, convolved: Tensor) -> Tensor:
        """What the gates hear of the text, [b, t, 4 d]: input and forget gate of the convolution, the others of x."""
        heard = zip((convolved, x), self.inputs, strict=True)
        parts = [torch.einsum("bthk,hgk->bthg", one.unflatten(-1, (self.heads, -1)), weight) for one, weight in heard]
        (i, f), (z, o) = (part.chunk(2, dim=-1) for part in parts)
        return torch.stack([i, f, z, o], 2).flatten(2)

    def flops(self, time: int) -> Flops:
        """Of the products with the last output, and of those with the gates' inputs."""
        width = self.down.out_features
        return recurrent_cell_flops(time, "slstm", width, self.heads).plus(product_flops(time * self.inputs.numel()))
