"""Rotary positions of whole texts compiled, forward and back: each number is read once. The C lies in `rotary.c`."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.native_build import REGISTER, compiled, lanes, remembered
from models.ops.providers import NotCovered, is_probing

SOURCE = Path(__file__).with_name("rotary.c")
KINDS = (torch.float32, torch.float64)
KEPT = 1 << 18  # numbers of a table that is worth keeping


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "half", "apart", "down", "aside")]


def turned(x: Tensor, start: int, frequency: Tensor | None, step: int) -> Tensor | None:
    """`models.layers.rotary` of x [b, t, h, d], d even; it may be differentiated again.

    None where that is not covered: half precision, frequencies that learn, off the CPU, inside torch.compile, without a compiler.
    Inside `probing` it is PyTorch that computes, and no more is kept for the backward pass than there.
    """
    if not x.is_cpu or x.dtype not in KINDS or x.dim() != 4 or torch.compiler.is_compiling() or not x.numel():
        return None
    if (frequency is not None and frequency.requires_grad) or (not is_probing() and _turn(x.dtype) is None):
        return None
    places = start, x.shape[1], step, x.shape[-1] // 2, x.dtype
    if frequency is not None or x.shape[1] * x.shape[-1] > KEPT:
        tables = circle(*places, frequency)
    else:
        tables = _kept(*places)
    return _Turn.apply(x, *tables, 1) if torch.is_grad_enabled() and x.requires_grad else _turned(x, *tables, 1)


def circle(
    start: int, time: int, step: int, half: int, kind: torch.dtype, frequency: Tensor | None, device: Any = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosine and sine [time, half] of the angles at all places."""
    if frequency is None:
        frequency = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float64) / half)
    # Angles in float64: float32 loses whole radians beyond some ten million tokens.
    place = start + step * torch.arange(time, device=device, dtype=torch.float64)
    angle = torch.outer(place, frequency.to(place))
    return angle.cos().to(kind), angle.sin().to(kind)


@lru_cache(maxsize=8)
def _kept(start: int, time: int, step: int, half: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """The tables of the places that each layer and each step of a training asks for again."""
    return circle(start, time, step, half, kind, None)


@remembered
def _turn(kind: torch.dtype) -> Any:
    try:
        return compiled(SOURCE, kind, "turn", "pppppdi", LANES=lanes(REGISTER, kind))
    except NotCovered:
        return None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor, sign: int) -> Tensor:
    if is_probing():
        cosine, sine, (first, second) = cosine[:, None], sign * sine[:, None], x.chunk(2, -1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
    x = x if x.stride(-1) == 1 else x.contiguous()
    (batch, time, heads, width), y = x.shape, torch.empty(x.shape, dtype=x.dtype)
    text = _Text(batch, time, heads, width // 2, *x.stride()[:3])
    addresses = (one.data_ptr() for one in (x, cosine, sine, y))
    _turn(x.dtype)(ctypes.byref(text), *addresses, sign, torch.get_num_threads())
    return y


class _Turn(torch.autograd.Function):
    """`apply(x, cosine, sine, sign)`: back goes the opposite turn, which may be differentiated in its turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, sign: int) -> Tensor:
        ctx.tables, ctx.sign = (cosine, sine), sign
        return _turned(x, cosine, sine, sign)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        return _Turn.apply(dy, *ctx.tables, -ctx.sign), None, None, None
