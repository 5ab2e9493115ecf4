"""The channel scan compiled, forward and backward: tokens side by side in a register. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.native_build import expect, kind_of, lanes, library, pointer, without_autocast
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
PARTS = 16  # into which a backward pass cuts its rows, whatever the number of threads
WIDEST = 16  # numbers in the widest register


class _Text(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_long),
        ("pieces", ctypes.c_long),
        ("x", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    ]


def native(x: Tensor, forwards: BlockWeights, backwards: BlockWeights) -> Tensor:
    """`models.ops.channel_scan.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    kind = kind_of(x)
    if not x.numel():
        return x
    with without_autocast():
        sizes = _sizes(x, forwards)
        for block in (forwards, backwards):
            _expect(block, sizes)
        weights = torch.stack(
            [torch.cat([part.flatten().to(kind) for part in block]) for block in (forwards, backwards)]
        )
        return _ChannelScan.apply(x.to(kind), weights, sizes).to(x.dtype)


def _sizes(x: Tensor, block: BlockWeights) -> dict[str, int]:
    """The macros of native.c."""
    (channels, kernel), rank, states = block.taps.shape, block.step.shape[1], block.rates.shape[1]
    return {"W": x.shape[2], "D": channels, "N": states, "R": rank, "KERNEL": kernel}


def _expect(block: BlockWeights, sizes: dict[str, int]) -> None:
    w, d, n, r, kernel = (sizes[name] for name in ("W", "D", "N", "R", "KERNEL"))
    shapes = BlockWeights((2 * d, w), (d, kernel), (d,), (r + 2 * n, d), (d, r), (d,), (d, n), (d,), (w, d))
    expect(**{name: (getattr(block, name), getattr(shapes, name)) for name in BlockWeights._fields})


def _built(x: Tensor, sizes: dict[str, int]) -> Library:
    return library(SOURCE, x.dtype, LANES=lanes(WIDEST, x.dtype), **sizes)


def _text(x: Tensor, weights: Tensor) -> _Text:
    return _Text(*x.shape[:2], pointer(x), pointer(weights))


class _ChannelScan(torch.autograd.Function):
    """`apply(x, weights [2, all], sizes)` -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, sizes: dict[str, int]) -> Tensor:
        x, weights = x.contiguous(), weights.contiguous()
        y = torch.empty_like(x)
        _built(x, sizes).forward(ctypes.byref(_text(x, weights)), pointer(y), torch.get_num_threads())
        ctx.save_for_backward(x, weights)
        ctx.sizes = sizes
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weights = ctx.saved_tensors
        dy, dx, dweights = dy.contiguous(), torch.empty_like(x), weights.new_empty(PARTS, *weights.shape)
        _built(x, ctx.sizes).backward(
            ctypes.byref(_text(x, weights)), pointer(dy), pointer(dx), pointer(dweights), ctypes.c_long(PARTS),
            torch.get_num_threads(),
        )  # fmt: skip
        return dx, dweights.sum(0), None
