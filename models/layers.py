"""The parts that many models share: norms, SwiGLU, short convolution, rotary positions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * g` over the last axis.

    With `weight=False` it has no gain, as RetNet's per-head norm.
    """

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
    """

    def __init__(self, width: int, kernel: int = 4, bias: bool = False):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(width, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        nn.init.uniform_(self.weight, -(kernel**-0.5), kernel**-0.5)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if state is None:
            state = x.new_zeros(x.shape[0], self.kernel - 1, x.shape[2])
        seen = torch.cat([state.to(x.dtype), x], dim=1)
        weight = self.weight.to(x.dtype)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            y = _Convolution.apply(seen, weight, None if self.bias is None else self.bias.to(x.dtype))
        else:
            y = _convolved(seen, weight, self.bias)
        return y, seen[:, x.shape[1] :].clone()


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[b, t + kernel - 1, d] -> [b, t, d], each channel with its own weights [d, 1, kernel].

    As a 2-d convolution over [1, t] with the channels last in memory: on a CPU three times as fast as conv1d.
    """
    return F.conv2d(x.mT[:, :, None], weight[:, :, None], bias, groups=weight.shape[0])[:, :, 0].mT


class _Convolution(torch.autograd.Function):
    """`_convolved` with its backward pass as another convolution and `kernel` sums: torch's own takes 3 times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        time, kernel = dy.shape[1], weight.shape[-1]
        dy = dy.contiguous()
        wide = torch.float64 if dy.dtype == torch.float64 else torch.float32
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _convolved(F.pad(dy, (0, 0, kernel - 1, kernel - 1)), weight.flip(-1), None)
        if ctx.needs_input_grad[1]:
            sums = [(dy * x[:, at : at + time]).sum((0, 1), dtype=wide) for at in range(kernel)]
            dw = torch.stack(sums, -1)[:, None].to(weight.dtype)
        if ctx.needs_input_grad[2]:
            db = dy.sum((0, 1), dtype=wide).to(dy.dtype)
        return dx, dw, db


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, t, h * d] -> [b, t, h, d]."""
    return x.unflatten(-1, (heads, -1))


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


def step_bias(count: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """The bias that makes softplus(bias) log-uniform in [low, high]: the initial step sizes of Mamba."""
    step = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=1e-4)
    return step + torch.log(-torch.expm1(-step))
