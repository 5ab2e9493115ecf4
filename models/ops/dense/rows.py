"""What stands between a layer's products, in one call each, forward and back: a residual sum and its norm, SwiGLU's gate.

Torch makes some seven operators of a norm, and more of its gradient: where segments of few rows pass layer after layer, to begin
them takes longer than to compute them. The C lies in `rows.c`; what it does not cover is PyTorch's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, compiled, lanes, remembered
from models.ops.providers import NotCovered

SOURCE = Path(__file__).with_name("rows.c")
KINDS = (torch.float32, torch.float64)
ARGUMENTS = {
    "norm_forward": "ppppplldi",
    "norm_backward": "ppppplli",
    "gate_forward": "pplli",
    "gate_backward": "ppplli",
}


def unit(x: Tensor, eps: float) -> Tensor:
    """Rows [.., d] brought to a mean square of 1, `x / sqrt(mean(x^2) + eps)`: an RMSNorm without its gain."""
    if not _covered(x) or x.shape[-1] % lanes(REGISTER, x.dtype):
        return F.rms_norm(x, x.shape[-1:], None, eps)
    return _Norm.apply(x.contiguous(), None, eps)


def added(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + y`, alike in shape, and `unit` of it."""
    if x.shape != y.shape or x.dtype is not y.dtype or not _covered(x) or x.shape[-1] % lanes(REGISTER, x.dtype):
        x = x + y
        return x, F.rms_norm(x, x.shape[-1:], None, eps)
    return _Norm.apply(x.contiguous(), y.contiguous(), eps)


def gated(both: Tensor) -> Tensor:
    """`silu(gate) * up` [.., units] of both, gates first, [.., 2 units]."""
    if both.shape[-1] % 2 or not _covered(both):
        gate, up = both.chunk(2, -1)
        return F.silu(gate) * up
    return _Gate.apply(both.contiguous())


def _covered(x: Tensor) -> bool:
    if not x.is_cpu or x.dtype not in KINDS or not x.numel() or torch.compiler.is_compiling():
        return False
    return _functions(x.dtype) is not None


@remembered
def _functions(kind: torch.dtype) -> dict[str, Any] | None:
    try:
        together = lanes(REGISTER, kind)
        return {name: compiled(SOURCE, kind, name, types, LANES=together) for name, types in ARGUMENTS.items()}
    except NotCovered:
        return None


def _run(name: str, kind: torch.dtype, tensors: tuple[Tensor | None, ...], *numbers: float) -> None:
    places = (None if x is None else x.data_ptr() for x in tensors)
    _functions(kind)[name](*places, *numbers, torch.get_num_threads())


class _Norm(torch.autograd.Function):
    """`apply(x, y, eps)` -> x + y and its unit rows, or the unit rows of x alone where y is None; contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, eps: float) -> Any:
        width = x.shape[-1]
        rows = x.numel() // width
        total, unit, scale = None if y is None else torch.empty_like(x), torch.empty_like(x), x.new_empty(rows)
        _run("norm_forward", x.dtype, (x, y, total, unit, scale), rows, width, eps)
        ctx.save_for_backward(unit, scale)
        ctx.both = y is not None
        return unit if y is None else (total, unit)

    @staticmethod
    @by_hand
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        unit, scale = ctx.saved_tensors
        total, own = (x.contiguous() for x in gradients) if ctx.both else (None, gradients[0].contiguous())
        d = torch.empty_like(unit)
        _run("norm_backward", unit.dtype, (own, total, unit, scale, d), len(scale), unit.shape[-1])
        return d, d if ctx.both else None, None


class _Gate(torch.autograd.Function):
    """`apply(both)` -> silu(gate) * up; contiguous."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        units = both.shape[-1] // 2
        y = both.new_empty(*both.shape[:-1], units)
        _run("gate_forward", both.dtype, (both, y), y.numel() // units, units)
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        units, d = dy.shape[-1], torch.empty_like(both)
        _run("gate_backward", both.dtype, (dy.contiguous(), both, d), dy.numel() // units, units)
        return d
