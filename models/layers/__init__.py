"""The parts that many models share: norms, SwiGLU, short convolution, rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops.dense import native as dense
from models.ops.dense import rotary as whole_text
from models.ops.dense import training
from models.ops.flops import Flops, product_flops
from models.ops.short_convolution import native as compiled_convolution
from models.ops.short_convolution import short_convolution
from models.ops.short_convolution.activated import Heads, activated


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * g` over the last axis.

    With `weight=False` it has no gain, as RetNet's per-head norm. `provider` "chunked" or "recurrence" keeps it to torch.
    """

    no_weight_decay = ("weight",)

    def __init__(self, width: int, weight: bool = True, eps: float = 1e-6, provider: str = "auto"):
        super().__init__()
        self.eps, self.provider = eps, provider
        self.shape = (width,)
        self.weight = nn.Parameter(torch.ones(width)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters.get("weight")
        if dense.is_short(x, self.provider) and (weight is None or weight.dtype is x.dtype):
            return dense.rms_norm(x, weight, self.eps)
        if (found := training.rms_norm(x, weight, self.eps, self.provider)) is not None:
            return found
        weight = None if weight is None else weight.to(x.dtype)  # one dtype, or torch leaves its fused form
        return F.rms_norm(x, self.shape, weight, self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv 2002.05202): `W_down (silu(W_gate x) * W_up x)`; no biases."""

    def __init__(self, width: int, inner: int, provider: str = "auto"):
        """`provider` "chunked" or "recurrence" keeps a single token to torch's products."""
        super().__init__()
        self.provider = provider
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if dense.is_step(x, self.provider):
            gate_up, down = (dense.plain(layer, x.dtype) for layer in (self.gate_up, self.down))
            if gate_up is not None and down is not None and gate_up[1] is down[1] is None:
                return dense.swiglu(x, gate_up[0], down[0])
        gate_up = self.gate_up(x)
        if (found := training.gated_halves(gate_up, self.provider)) is not None:
            return self.down(found)
        gate, up = gate_up.chunk(2, dim=-1)
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

    def activated(self, x: Tensor, state: Tensor | None, heads: Heads) -> tuple[list[Tensor], Tensor] | None:
        """SiLU of the convolution in one call, in parts of which some are in heads of unit length (`l2_norm`), and the state.

        None where there is no such call: in half precision, with gradients in few channels, where nothing compiled is to compute.
        """
        if self.provider in dense.PLAIN or self._forward_hooks or self._forward_pre_hooks:
            return None
        if (found := activated(x, self.weight, self.bias, state, heads)) is not None:
            return found
        unit = sum(heads.widths[: heads.unit])
        found = compiled_convolution.heads(x, self.weight, self.bias, state, heads.head, unit, heads.eps)
        if found is None:
            return None
        y, last = found
        return _first_scaled(list(y.split(heads.widths, dim=-1)), heads.scale), last

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return short_convolution.form_or_auto(self.provider)(x, self.weight, self.bias, state)


def maps(x: Tensor, *layers: nn.Module, provider: str = "auto") -> list[Tensor]:
    """What each of several linear layers makes of x; a single token passes them compiled, unless the provider forbids it."""
    if not dense.is_step(x, provider):
        return [layer(x) for layer in layers]
    made = [(layer, dense.plain(layer, x.dtype)) for layer in layers]
    return [layer(x) if own is None else dense.linear(x, *own) for layer, own in made]


def convolved(convolution: nn.Module, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """`silu(conv(x))` [b, t, d] and the convolution's state."""
    [x], state = convolved_parts(convolution, x, state, [x.shape[-1]])
    return x, state


def convolved_parts(
    convolution: nn.Module, x: Tensor, state: Tensor | None, widths: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """`silu(conv(x))` in parts of `widths` channels, each [b, t, its width], and the convolution's state."""
    if isinstance(convolution, ShortConvolution):
        if (found := convolution.activated(x, state, Heads(tuple(widths)))) is not None:
            return found
    x, state = convolution(x, state)
    return list(F.silu(x).split(widths, dim=-1)), state


def convolved_heads(
    convolution: nn.Module,
    x: Tensor,
    state: Tensor | None,
    widths: Sequence[int],
    heads: int,
    unit: int,
    scale: float = 1.0,
) -> tuple[list[Tensor], Tensor]:
    """`silu(conv(x))` in parts of `widths` channels, each [b, t, h, d], the first `unit` of unit length; and the state.

    Those that are brought to unit length (`l2_norm`) are equally wide; the first of them is multiplied by `scale` then.
    """
    found = None
    if isinstance(convolution, ShortConvolution):
        found = convolution.activated(x, state, Heads(tuple(widths), widths[0] // heads, unit, scale))
    if found is not None:
        parts, state = found
        return [split_heads(part, heads) for part in parts], state
    x, state = convolution(x, state)
    parts = [split_heads(part, heads) for part in F.silu(x).split(widths, dim=-1)]
    parts[:unit] = map(l2_norm, parts[:unit])
    return _first_scaled(parts, scale), state


def _first_scaled(parts: list[Tensor], scale: float) -> list[Tensor]:
    return parts if scale == 1.0 else [parts[0] * scale, *parts[1:]]


def gated(y: Tensor, z: Tensor, provider: str = "auto") -> Tensor:
    """`y * silu(z)`, alike in shape; compiled where the provider allows it, of a short y or in a training."""
    if y.shape == z.shape and y.dtype is z.dtype:
        if dense.is_short(y, provider):
            return dense.gated(y, z)
        if (found := training.gated(y, z, provider)) is not None:
            return found
    return y * F.silu(z)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 if it is narrower, else as it is: gates need more digits than bfloat16 has, and float64 keeps its own."""
    if x.dtype is torch.float32 or x.dtype is torch.float64:
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, t, h * d] -> [b, t, h, d]."""
    return x.unflatten(-1, (heads, -1))


def head_norm(y: Tensor, norm: nn.GroupNorm) -> Tensor:
    """`norm`, one group a head, of y [b, t, h, d]: [b, t, h * d]. Torch's layer norm computes it at a third of the time."""
    y = F.layer_norm(y, y.shape[-1:], eps=norm.eps).flatten(2).to(y.dtype) * norm.weight.to(y.dtype)
    return y if norm.bias is None else y + norm.bias.to(y.dtype)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """`norm` of x in the digits of x, which may be more than those of the norm's own weights."""
    weight, bias = (None if part is None else part.to(x.dtype) for part in (norm.weight, norm.bias))
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


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
    if dense.is_short(x):
        return dense.rotary(x, start, frequency, step)
    if (found := whole_text.turned(x, start, frequency, step)) is not None:
        return found
    tables = whole_text.circle(start, x.shape[1], step, half, x.dtype, frequency, x.device)
    cos, sin = (table[:, None] for table in tables)
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
