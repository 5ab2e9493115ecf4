"""Polynomial features of degree two compiled, forward and backward. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import kind_of, lanes, library, pointer, without_autocast
from models.ops.providers import NotCovered
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
PARTS = 64  # into which a backward pass cuts its rows, whatever the number of threads
WIDEST = 16  # numbers in the widest register


def native(x: Tensor, factors: Tensor) -> Tensor:
    """`models.ops.associative_memory.features.plain.plain` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered for another degree than 2, off the CPU, and where no library can be built.
    """
    kind, width = kind_of(x), x.shape[-1]
    if len(factors) != 3:
        raise NotCovered("The compiled polynomial features are of degree 2; use provider chunked.")
    with without_autocast():
        y = _Features.apply(x.to(kind).reshape(-1, width), factors.to(kind))
    return y.view(*x.shape[:-1], y.shape[-1]).to(x.dtype)


def _built(x: Tensor) -> Library:
    return library(SOURCE, x.dtype, W=x.shape[1], LANES=lanes(WIDEST, x.dtype))


class _Features(torch.autograd.Function):
    """`apply(x [rows, width], factors [3])` -> y [rows, features]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        x, factors = x.contiguous(), factors.contiguous()
        (rows, width), threads = x.shape, torch.get_num_threads()
        y = x.new_empty(rows, 1 + width + math.comb(width + 1, 2))
        _built(x).forward(pointer(x), pointer(factors), pointer(y), ctypes.c_long(rows), threads)
        ctx.save_for_backward(x, factors)
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, factors = ctx.saved_tensors
        dy, dx, dfactors = dy.contiguous(), torch.empty_like(x), factors.new_empty(PARTS, 3)
        _built(x).backward(
            pointer(x), pointer(factors), pointer(dy), pointer(dx), pointer(dfactors), ctypes.c_long(len(x)),
            ctypes.c_long(PARTS), torch.get_num_threads(),
        )  # fmt: skip
        return dx, dfactors.sum(0)
