"""Learned sketches compiled: tiles of vectors, their hidden units in the processor's caches. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.learned_sketch.chunked import scaled
from models.ops.native_build import address, expect, kind_of, lanes, library, pointer, without_autocast
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
TILE = 8  # registers of vectors in a tile; TILE in native.c
PIECES = 8  # sums of gradients that threads fill side by side, as many for one thread: the same digits


class _Sketches(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("rows", "width", "hidden", "sketch")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "up", "down", "next_up", "next_down")]


def native(x: Tensor, up: Tensor, down: Tensor, next_up: Tensor, next_down: Tensor) -> Tensor:
    """`models.ops.learned_sketch.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    kind, (width, (_, sketch, hidden)) = kind_of(x), (x.shape[-1], down.shape)
    expect(up=(up, (2, hidden, width + 1)), down=(down, (2, sketch, hidden)))
    expect(next_up=(next_up, (2, hidden, sketch + 1)), next_down=(next_down, (2, sketch, hidden)))
    with without_autocast():
        given = x.to(kind).reshape(-1, width).contiguous(), *scaled(kind, up, down, next_up, next_down)
        y = _Sketch.apply(*given)
    return y.view(*x.shape[:-1], sketch).to(x.dtype)


def _built(x: Tensor) -> tuple[Library, int]:
    """The library, and how many numbers it puts side by side."""
    together = lanes(64, x.dtype)
    return library(SOURCE, x.dtype, LANES=together), together


def _sketches(x: Tensor, weights: tuple[Tensor, ...]) -> Any:
    _, sketch, hidden = weights[1].shape
    return ctypes.byref(_Sketches(*x.shape, hidden, sketch, *(address(one) for one in (x, *weights))))


class _Sketch(torch.autograd.Function):
    """`apply(x, up, down, next_up, next_down)` -> g [n, r] of x [n, d], all contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        y = x.new_empty(len(x), weights[1].shape[1])
        _built(x)[0].forward(_sketches(x, weights), pointer(y), torch.get_num_threads())
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, *weights = ctx.saved_tensors
        built, together = _built(x)
        (_, sketch, hidden), dx = weights[1].shape, torch.empty_like(x)
        pieces = max(1, min(PIECES, -(-len(x) // (TILE * together))))
        columns = x.shape[1] + 1, sketch, sketch + 1, sketch
        sums = [x.new_zeros(pieces, 2, hidden, -(-width // together) * together) for width in columns]
        dy = dy.contiguous()
        places = [pointer(one) for one in (dy, dx, *sums)]
        built.backward(_sketches(x, weights), *places, ctypes.c_long(pieces), torch.get_num_threads())
        dup, ddown, dnext_up, dnext_down = (one.sum(0)[..., :width] for one, width in zip(sums, columns, strict=True))
        return dx, dup, ddown.mT, dnext_up, dnext_down.mT
