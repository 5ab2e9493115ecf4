"""Hawk: the real-gated linear recurrent unit, every number with a gate of its own.

De et al. 2024, arXiv 2402.19427, Sections 2.3 and 2.4, as the authors' code (google-deepmind/recurrentgemma) has it:

    out = W_out ( RGLRU(conv(W_x x)) * gelu(W_y x) ),   all with biases, a convolution of 4, no activation behind it
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t * x_t),    log a_t = -8 r_t softplus(Lambda),
    r_t = sigmoid(W_a x_t + b_a), i_t = sigmoid(W_i x_t + b_i)

W_a and W_i are block-diagonal, one block a head. A text's first token has the factor 1 in place of sqrt(1 - a^2). Weights are
drawn as there, N(0, 1 / fan in), the output's N(0, 2 / (layers fan in)), the convolution's N(0, 0.01 / kernel), biases 0, and
Lambda so that e^(-2 softplus(Lambda)) is uniform in [0.9^2, 0.999^2]: the code's, by which a begins near the fourth power of what
the paper says.

Deviations: the channel mixing is the shell's SwiGLU, theirs a GeGLU of 3 times the width; as many blocks as the model has heads,
theirs 16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.law import Law
from models.layers import ShortConvolution, at_least_float32, split_heads
from models.ops.autograd import by_hand
from models.ops.diagonal_scan import diagonal_scan
from models.ops.diagonal_scan.flops import diagonal_flops
from models.ops.flops import Flops, product_flops
from models.registry import register

STEEPEST = 1000.0  # the derivative of the square root is at most so large, as in the authors' code
SHARPNESS = 8.0  # the paper's c


@register(
    "hawk",
    paper="De et al. 2024, arXiv 2402.19427",
    equation="h <- a h + sqrt(1 - a^2) (i * x);  log a = -8 softplus(L) sigmoid(W_a x), i = sigmoid(W_i x)",
)
class Hawk(nn.Module):
    """The recurrent block. State: the convolution's last inputs and h [b, d]."""

    law = Law(
        forget="a, per channel, from x",
        compare="-",
        write="sqrt(1 - a^2) (i * x)",
        read="h",
    )
    fixed_state = True
    no_weight_decay = ("decay", "gate_bias")
    with_weight_decay = ("gate",)

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        kernel: int = 4,
        provider: str = "auto",
        index: int = 0,
        depth: int = 1,
    ):
        """`inner` is the width of the recurrence, about 4/3 of the model's by default; the model's depth scales the output."""
        super().__init__()
        inner = max(1, round(4 * width / (3 * heads))) * heads if inner is None else inner
        if inner % heads:
            raise ValueError(f"Hawk's inner width {inner} must be a multiple of its {heads} heads; change inner.")
        self.heads, self.provider = heads, provider
        self.project, self.out = nn.Linear(width, 2 * inner), nn.Linear(inner, width)
        self.convolution = ShortConvolution(inner, kernel, bias=True, provider=provider)
        block = inner // heads
        self.gate = nn.Parameter(torch.randn(heads, block, 2 * block) * block**-0.5)
        self.gate_bias = nn.Parameter(torch.zeros(2 * inner))
        self.decay = nn.Parameter(decay_parameter(inner))
        nn.init.normal_(self.project.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=(2 / (depth * inner)) ** 0.5)
        nn.init.normal_(self.convolution.weight, std=(0.01 / kernel) ** 0.5)
        for part in (self.project, self.out, self.convolution):
            nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        tail, h = (None, None) if state is None else state
        x, y = self.project(x).chunk(2, dim=-1)
        x, tail = self.convolution(x, tail)
        recurrence, given = self._gates(x)
        log_a = -SHARPNESS * recurrence.sigmoid() * F.softplus(at_least_float32(self.decay))
        factor = BoundedRoot.apply(-torch.expm1(2 * log_a))
        if state is None:
            factor = torch.cat([torch.ones_like(factor[:, :1]), factor[:, 1:]], 1)
        h, last = diagonal_scan(log_a.exp(), factor * given.sigmoid() * x, h, provider=self.provider)
        return self.out(h.to(y.dtype) * F.gelu(y, approximate="tanh")), (tail, last)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the two sigmoids are taken of, [b, t, d] each: every head's block looks at its own numbers."""
        gates = torch.einsum("bthi,hio->btho", split_heads(x, self.heads), self.gate.to(x.dtype)).unflatten(-1, (2, -1))
        bias = split_heads(self.gate_bias.unflatten(0, (2, -1)), self.heads)
        return tuple((at_least_float32(gates[..., n, :]) + bias[n]).flatten(2) for n in range(2))

    def flops(self, time: int) -> Flops:
        """Of the gates' blocks and the recurrence."""
        inner = self.out.in_features
        return product_flops(2.0 * time * inner * inner / self.heads).plus(diagonal_flops(time, inner))


def decay_parameter(count: int, low: float = 0.9, high: float = 0.999) -> Tensor:
    """Lambda with `e^(-2 softplus(Lambda))` uniform in [low^2, high^2]."""
    root = torch.empty(count).uniform_(low**2, high**2).log() / 2
    return torch.expm1(-root).log()


class BoundedRoot(torch.autograd.Function):
    """The square root, whose derivative is at most STEEPEST: a gate that is wide open shall not give infinite gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    @by_hand
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return slope / (2 * root).clamp_min(1 / STEEPEST)
