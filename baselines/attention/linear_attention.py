"""Linear attention: the softmax's kernel is replaced by positive features, so that attention is a recurrence.

Katharopoulos et al. 2020, arXiv 2006.16236, eq. 16 to 20, as the authors' code (idiap/fast-transformers) has it:

    S <- S + phi(k) v^T,   z <- z + phi(k),   y = S^T phi(q) / (z . phi(q) + 1e-6),   phi(x) = elu(x) + 1,   out = W_o y + b

q, k, v [d] for each head from linear maps with biases, drawn as `nn.Linear` draws them. S is [d, d], z is kept as one more column
of it; both are divided by the number of tokens that they hold, which leaves y as it is and keeps them of one size.

The sums do not know the order of what they hold. `positions="sinusoidal"` is the paper's remedy: sin and cos of
place * 10000^(-2 i / width) beside each other, here added to the mixer's input in every layer. Two settings of ours, off by
default, make it begin to learn sooner: `conv`, the kernel of a short convolution over q, k and v, and `sharpness` c in phi(c x).

Deviation: the paper adds positions once, to the embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.law import Law
from models.layers import ShortConvolution, at_least_float32, split_heads
from models.ops.flops import Flops
from models.ops.kernel_attention import kernel_attention
from models.ops.kernel_attention.flops import kernel_attention_flops
from models.registry import register

EPSILON = 1e-6  # beside the sum of weights, as in the authors' code


@register(
    "linear-attention",
    paper="Katharopoulos, Vyas, Pappas and Fleuret 2020, arXiv 2006.16236",
    equation="S <- S + phi(k) v^T;  z <- z + phi(k);  y = S^T phi(q) / (z . phi(q)),  phi(x) = elu(x) + 1",
)
class LinearAttention(nn.Module):
    """The linear attention layer. State: the convolution's last inputs if it has one, and the mean of phi(k) [v | 1]."""

    period = 64  # the longest chunk of the chunked form
    fixed_state = True
    law = Law(forget="-", compare="-", write="phi(k) [v | 1]^T", read="S^T phi(q) / (z . phi(q))")

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        positions: Literal["sinusoidal", "none"] = "sinusoidal",
        conv: int = 0,
        sharpness: float = 1.0,
        provider: str = "auto",
    ):
        """`inner` is the width of queries, keys and values over all heads, the model's by default."""
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads or conv < 0 or sharpness <= 0:
            raise ValueError(
                f"Linear attention needs inner ({inner}) to be a multiple of heads ({heads}), conv >= 0 and sharpness > 0."
            )
        if positions not in ("sinusoidal", "none"):
            raise ValueError(f"Unknown positions '{positions}'; choose sinusoidal or none.")
        self.heads, self.positions, self.sharpness, self.provider = heads, positions, sharpness, provider
        self.qkv = nn.Linear(width, 3 * inner)
        self.convolution = ShortConvolution(3 * inner, conv, provider=provider) if conv else None
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        tail, sums = (None, None) if state is None else state
        if self.positions == "sinusoidal":
            x = x + sinusoids(0 if sums is None else sums[-1], x)
        qkv = self.qkv(x)
        if self.convolution is not None:
            qkv, tail = self.convolution(qkv, tail)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        q, k = (F.elu(self.sharpness * at_least_float32(part)) + 1 for part in (q, k))
        y, sums = kernel_attention(q, k, v, plus=EPSILON, state=sums, provider=self.provider)
        return self.out(y.flatten(2)), (tail, sums)

    def flops(self, time: int) -> Flops:
        """Of the sums."""
        head = self.out.in_features // self.heads
        return kernel_attention_flops(time, self.heads, head, head, "product")


def sinusoids(start: int, x: Tensor) -> Tensor:
    """Sinusoidal positions [t, width] of tokens x [b, t, width] that begin at place `start` (Vaswani et al. 2017)."""
    time, width = x.shape[1:]
    # Angles in float64: float32 loses whole radians beyond some ten million tokens.
    place = start + torch.arange(time, device=x.device, dtype=torch.float64)
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float64) / width)
    angle = torch.outer(place, frequency)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(x.dtype)
