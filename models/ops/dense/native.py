"""RMS norm, linear maps and SwiGLU of a few rows, compiled: what a token that is decoded passes. The C lies in `native.c`.

For one row, torch's operators take longer to begin than to compute. A caller asks `is_step` first; what it does not cover goes
on with torch: a gradient, many rows, half precision, autocast, another device, a machine without a compiler, a layer to which
somebody listens. Numbers differ from torch's by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from models.ops.dense.half_weights import half_of
from models.ops.native_build import compiled, lanes, remembered
from models.ops.providers import NotCovered, note

SOURCE = Path(__file__).with_name("native.c")
FEW = 4  # rows up to which a map that is read once a row is no slower than torch's product
SHORT = 1 << 14  # numbers up to which one thread of compiled code is no slower than torch's norm on several
PLAIN = ("recurrence", "chunked")  # providers that ask for PyTorch
KINDS = (torch.float32, torch.float64)
ARGUMENTS = {"rms_norm": "pppllld", "linear": "ppppllli", "swiglu": "pppppllli", "gated": "pppl", "rotary": "pppllllll"}


def is_step(x: Tensor, provider: str = "auto") -> bool:
    """Whether x [b, 1, .., width] is a token of few rows, without a gradient, which the provider leaves to compiled code."""
    return x.numel() <= FEW * x.shape[-1] and is_short(x, provider)


def is_short(x: Tensor, provider: str = "auto") -> bool:
    """`is_step`, of more rows: where a number is touched once, as in a norm, and not once for each output.

    Never inside torch.compile, which makes one piece of what surrounds them.

    Of one token alone: pieces of a text that are longer are computed as the whole is, to the digit, which a law needs that
    amplifies rounding (ATLAS).
    """
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.dim() > 2
        and x.shape[1] == 1
        and 0 < x.numel() <= SHORT
        and x.is_cpu
        and x.dtype in KINDS
        and provider not in PLAIN
        and not torch.is_autocast_enabled("cpu")
        and bool(_functions(x.dtype))
    )


@remembered
def _functions(kind: torch.dtype) -> dict[str, Callable]:
    """The compiled functions for numbers of a kind; none where they cannot be built."""
    try:
        together = lanes(64, kind)
        return {name: compiled(SOURCE, kind, name, types, LANES=together) for name, types in ARGUMENTS.items()}
    except NotCovered:
        return {}


@remembered
def _half(name: str) -> Callable:
    """A compiled map whose weights lie in bfloat16; numbers are float32."""
    return compiled(SOURCE, torch.float32, name, ARGUMENTS[name], LANES=lanes(64, torch.float32), HALF=1)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * gain` over the last axis. A gain may be wider: then it lies over several rows at once."""
    x, width = x.contiguous(), x.shape[-1]
    y, gain = torch.empty_like(x), None if gain is None else gain.contiguous()
    own, gains = (None, width) if gain is None else (gain.data_ptr(), gain.numel())
    _functions(x.dtype)["rms_norm"](x.data_ptr(), own, y.data_ptr(), x.numel() // width, width, gains, eps)
    note("native")
    return y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias`, x [.., in], weight [out, in]."""
    x, (out, width) = x.contiguous(), weight.shape
    y, half = x.new_empty(*x.shape[:-1], out), half_of(weight)
    run, weight = (_functions(x.dtype)["linear"], weight) if half is None else (_half("linear"), half)
    run(
        x.data_ptr(), weight.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr(),
        x.numel() // width, width, out, torch.get_num_threads(),
    )  # fmt: skip
    return y


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """`W_down (silu(W_gate x) * W_up x)`; gate_up [2 inner, width] and down [width, inner]."""
    x, (width, inner) = x.contiguous(), down.shape
    room, y, run = x.new_empty(2 * inner), torch.empty_like(x), _functions(x.dtype)["swiglu"]
    halves = half_of(gate_up), half_of(down)
    if None not in halves:
        run, (gate_up, down) = _half("swiglu"), halves
    run(
        x.data_ptr(), gate_up.data_ptr(), down.data_ptr(), room.data_ptr(), y.data_ptr(),
        x.numel() // width, width, inner, torch.get_num_threads(),
    )  # fmt: skip
    note("native")
    return y


def gated(y: Tensor, z: Tensor) -> Tensor:
    """`y * silu(z)`."""
    y, z = y.contiguous(), z.contiguous()
    made = torch.empty_like(z)
    _functions(y.dtype)["gated"](y.data_ptr(), z.data_ptr(), made.data_ptr(), z.numel())
    return made


def rotary(x: Tensor, start: int, frequency: Tensor | None, step: int) -> Tensor:
    """`models.layers.rotary` of x [b, t, h, d], d even; frequencies [d / 2] in float64."""
    x, (batch, time, heads, width) = x.contiguous(), x.shape
    y, own = torch.empty_like(x), None if frequency is None else frequency.double().contiguous()
    _functions(x.dtype)["rotary"](
        x.data_ptr(), y.data_ptr(), None if own is None else own.data_ptr(), batch, time, heads, width // 2, start, step
    )
    return y


def plain(layer: nn.Module, kind: torch.dtype) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a linear map like any other, of this dtype and contiguous; None where it is not, or somebody listens.

    Looked up where a module keeps them: asked at each map of each token, its attributes would take longer than the map.
    """
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    for part in (weight, bias):
        if part is not None and not (part.dtype is kind and part.is_contiguous()):
            return None
    return None if weight is None else (weight, bias)
