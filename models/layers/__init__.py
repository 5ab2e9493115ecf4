"""The parts that many models share: norms, SwiGLU, short convolution, rotary positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops.flops import Flops, product_flops
from models.ops.short_convolution import short_convolution


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * g` over the last axis.

    With `weight=False` it has no gain, as RetNet's per-head norm.
    """

    no_weight_decay = ("weight",)

    def __init__(self, width: int, weight: bool = True, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.shape = (width,)
        self.weight = nn.Parameter(torch.ones(width)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)  # one dtype, or torch leaves its fused form
        return F.rms_norm(x, self.shape, weight, self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv 2002.05202): `W_down (silu(W_gate x) * W_up x)`; no biases."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class ShortConvolution(nn.Module):
    """Causal depthwise convolution over time, kernel 4 by default: `y_t = sum_j w_j x_{t-j} (+ bias)`, per channel.

    Shapes: x [b, t, d] -> y [b, t, d]. The state is the last `kernel - 1` inputs, [b, kernel - 1, d]; None stands for zeros.
    Weight and bias are drawn as `nn.Conv1d` draws them, uniform within kernel^-1/2.
    """

    no_weight_decay, with_weight_decay = ("bias",), ("weight",)

    def __init__(self, width: int, kernel: int = 4, bias: bool = False, provider: str = "auto"):
        """`provider` computes it if it has a form of the short convolution; if it has none, `auto` does."""
        super().__init__()
        self.kernel, self.provider = kernel, provider
        self.weight = nn.Parameter(torch.empty(width, 1, kernel))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        for part in (self.weight, self.bias):
            if part is not None:
                nn.init.uniform_(part, -(kernel**-0.5), kernel**-0.5)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return short_convolution.form_or_auto(self.provider)(x, self.weight, self.bias, state)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 if it is narrower, else as it is: gates need more digits than bfloat16 has, and float64 keeps its own."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, t, h * d] -> [b, t, h, d]."""
    return x.unflatten(-1, (heads, -1))


def head_norm(y: Tensor, norm: nn.GroupNorm) -> Tensor:
    """`norm`, one group a head, of y [b, t, h, d]: [b, t, h * d]. Torch's layer norm computes it at a third of the time."""
    y = F.layer_norm(y, y.shape[-1:], eps=norm.eps).flatten(2).to(y.dtype) * norm.weight.to(y.dtype)
    return y if norm.bias is None else y + norm.bias.to(y.dtype)


def l2_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`x / sqrt(sum(x^2) + eps)` over the last axis: unit keys and queries of the delta-rule models."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def rotary(x: Tensor, start: int, frequency: Tensor | None = None, step: int = 1) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) for x [b, t, h, d], whose first token stands at place `start`.

    Each next token stands `step` places further on.
    The pair (x_i, x_{i + d/2}) turns by `place * frequency_i`, by default `10000^(-2 i / d)`. Raises ValueError if d is odd.
    """
    half = x.shape[-1] // 2
    if 2 * half != x.shape[-1]:
        raise ValueError(f"Rotary positions need an even head width, not {x.shape[-1]}; change width or heads.")
    if frequency is None:
        frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    # Angles in float64: float32 loses whole radians beyond some ten million tokens.
    place = start + step * torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    angle = torch.outer(place, frequency.to(place))[:, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def lecun_normal(*shape: int, fan_in: int) -> Tensor:
    """Random numbers of variance 1 / fan_in, none beyond two deviations: flax's first weights of a linear map."""
    deviation = fan_in**-0.5 / 0.87962566103423978  # what cutting the tails leaves of a deviation of 1
    return nn.init.trunc_normal_(torch.empty(shape), std=deviation, a=-2 * deviation, b=2 * deviation)


def into_complex(x: Tensor, weight: Tensor) -> Tensor:
    """Complex numbers [b, t, n] out of real ones [b, t, d], in at least single width, by one real matrix product.

    weight [n, 2, d] holds real and imaginary parts.
    """
    pairs = at_least_float32(F.linear(x, weight.flatten(0, 1).to(x.dtype)))
    return torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))


def real_part(h: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`Re(W h)` [b, t, d] of complex h [b, t, n], by one real matrix product in `dtype`; weight [d, n, 2] as pairs."""
    signed = torch.stack([weight[..., 0], -weight[..., 1]], -1).flatten(1)
    return F.linear(torch.view_as_real(h).flatten(-2).to(dtype), signed.to(dtype))


def step_bias(count: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """The bias that makes softplus(bias) log-uniform in [low, high]: the initial step sizes of Mamba."""
    step = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=1e-4)
    return step + torch.log(-torch.expm1(-step))


def linear_flops(module: nn.Module, rows: int) -> Flops:
    """Operations of all `nn.Linear` and short convolutions in a module, each applied to `rows` rows."""
    weights = 0
    for part in module.modules():
        if isinstance(part, nn.Linear | ShortConvolution):
            weights += part.weight.numel()
    return product_flops(rows * weights)
