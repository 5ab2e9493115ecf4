"""SiLU of the short convolution in heads, some of unit length, compiled for training: forward and backward in one call each.

What PyTorch does after the convolution (SiLU, cuts, unit lengths) reads and writes the text a dozen times on the way there and
back, and keeps it four times; here x alone is kept. The C lies in `activated.c`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import address, expect, is_trained_whole, lanes, library, remembered
from models.ops.providers import NotCovered, note
from models.ops.recording import Library
from models.ops.short_convolution.native import Text, after

SOURCE = Path(__file__).with_name("activated.c")
# Channels from which it computes, with unit heads and without: narrower texts keep torch's SiLU, to whose digits the trainings
# that are committed come again. (Mamba-2 of width 64 convolves 408 channels.)
LEAST_IN_HEADS, LEAST = 256, 448
STRIP, WIDEST = 16, 1024  # tokens of a strip, channels of a group: as `activated.c` has them
TOGETHER = 64  # channels of a group that are no head
SLAB = 256  # channels that one thread takes along at once


class _Group(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("first", "width", "part", "offset", "stride", "is_unit")]
    _fields_ += [("scale", ctypes.c_double)]


class _Outputs(ctypes.Structure):
    _fields_ = [
        ("groups", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("parts", ctypes.c_void_p),
        ("eps", ctypes.c_float),
    ]


class _Outputs64(ctypes.Structure):
    _fields_ = [*_Outputs._fields_[:3], ("eps", ctypes.c_double)]


class Heads(NamedTuple):
    """What becomes of the channels: parts of `widths`, the first `unit` of them in heads of `head` channels of unit length.

    The first of these is multiplied by `scale`.
    """

    widths: tuple[int, ...]
    head: int = 1
    unit: int = 0
    scale: float = 1.0
    eps: float = 1e-6


def activated(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, heads: Heads
) -> tuple[list[Tensor], Tensor] | None:
    """The parts of `silu(conv(x))`, each [b, t, its width], and the last inputs, with a gradient; other shapes as `recurrence`.

    None where that is not covered: without gradients, few channels, half precision or autocast, off the CPU, inside
    torch.compile, without a compiler; and inside `probing`, where nothing compiled is counted.
    """
    is_wide = x.shape[2] >= (LEAST_IN_HEADS if heads.unit else LEAST) and heads.head <= WIDEST
    if not is_wide or not is_trained_whole(x, weight, bias, state) or _built(x.dtype, weight.shape[2], heads) is None:
        return None
    (batch, _, width), kernel = x.shape, weight.shape[2]
    if state is None:
        state = x.new_zeros(batch, kernel - 1, width)
    expect(weight=(weight, (width, 1, kernel)), bias=(bias, (width,)), state=(state, (batch, kernel - 1, width)))
    *parts, last = _Activated.apply(x, weight, bias, state, heads)
    note("native")
    return parts, last


def _lanes(heads: Heads, kind: torch.dtype) -> int:
    return lanes(math.gcd(*heads.widths, heads.head if heads.unit else 0), kind)


@remembered
def _built(kind: torch.dtype, kernel: int, heads: Heads) -> Library | None:
    """The library, or None where it cannot be built."""
    try:
        return library(SOURCE, kind, KERNEL=kernel, LANES=_lanes(heads, kind))
    except NotCovered:
        return None


@cache
def _groups(heads: Heads) -> tuple[ctypes.Array, ctypes.Array]:
    """The groups of channels in order, and how many of them there are before each slab and in all."""
    groups, first = [], 0
    for part, width in enumerate(heads.widths):
        is_unit = part < heads.unit
        step, scale = heads.head if is_unit else TOGETHER, 1.0 if part else heads.scale
        for offset in range(0, width, step):
            groups.append(_Group(first + offset, min(step, width - offset), part, offset, width, is_unit, scale))
        first += width
    slabs, begun = [0], 0
    for number, group in enumerate(groups):
        if group.first + group.width - begun > SLAB and number > slabs[-1]:
            slabs.append(number)
            begun = group.first
    slabs.append(len(groups))
    return (_Group * len(groups))(*groups), (ctypes.c_long * len(slabs))(*slabs)


def _outputs(heads: Heads, parts: Sequence[Tensor]) -> tuple[ctypes.Structure, Any]:
    """What C is told of the parts, and what must be held meanwhile."""
    groups, _ = _groups(heads)
    addresses = (ctypes.c_void_p * len(parts))(*(part.data_ptr() for part in parts))
    made = (_Outputs if parts[0].dtype is torch.float32 else _Outputs64)(
        ctypes.addressof(groups), len(groups), ctypes.addressof(addresses), heads.eps
    )
    return made, addresses


class _Activated(torch.autograd.Function):
    """`apply(x, weight, bias, state, heads)` -> the parts and the last inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, heads: Heads
    ) -> tuple[Tensor, ...]:
        x, state = x.contiguous(), state.contiguous()
        own = x, weight[:, 0].T.contiguous(), None if bias is None else bias.contiguous(), state
        parts = [x.new_empty(*x.shape[:2], width) for width in heads.widths]
        text, (told, _held) = Text(*x.shape, *map(address, own)), _outputs(heads, parts)
        _built(x.dtype, weight.shape[2], heads).forward(ctypes.byref(text), ctypes.byref(told), torch.get_num_threads())
        ctx.save_for_backward(*own)
        ctx.heads = heads
        return *parts, after(x, state)

    @staticmethod
    @by_hand
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *parts, dlast = (one.contiguous() for one in gradients)
        x, weight, bias, state = ctx.saved_tensors
        (kernel, width), (batch, time, _), heads = weight.shape, x.shape, ctx.heads
        dx, dstate = torch.empty_like(x), torch.empty_like(state)
        dweight, room = x.new_empty(batch, kernel + 1, width), x.new_empty(batch * width * (STRIP + kernel - 1))
        text, (told, _held) = Text(*x.shape, *map(address, (x, weight, bias, state))), _outputs(heads, parts)
        slabs = _groups(heads)[1]
        given = (ctypes.c_void_p(one.data_ptr()) for one in (room, dx, dstate, dweight))
        _built(x.dtype, kernel, heads).backward(
            ctypes.byref(text),
            ctypes.byref(told),
            slabs,
            ctypes.c_long(len(slabs) - 1),
            *given,
            torch.get_num_threads(),
        )
        kept = min(time, kernel - 1)
        dx[:, time - kept :] += dlast[:, kernel - 1 - kept :]
        dstate[:, kept:] += dlast[:, : kernel - 1 - kept]
        dweight = dweight.sum(0)
        return dx, dweight[:kernel].T[:, None], None if bias is None else dweight[kernel], dstate, None
