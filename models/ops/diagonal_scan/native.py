"""The diagonal law compiled: token by token, the state's numbers side by side in registers. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.diagonal_scan.recurrence import packed, unpacked
from models.ops.native_build import expect, kind_of, lanes, library, pointer
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "width")] + [("a", ctypes.c_void_p)]


def native(a: Tensor, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.diagonal_scan.recurrence.recurrence` compiled; same shapes, dtypes as in `chunked`.

    Raises NotCovered off the CPU and where no library can be built.
    """
    kind_of(x)
    asked = torch.promote_types(a.dtype, x.dtype)
    kind = torch.promote_types(asked, torch.float32)
    with torch.autocast("cpu", enabled=False):
        a, x, state = a.to(kind), x.to(kind), unpacked(state, x, kind)
        if not x.numel():
            return x.to(asked), packed(state)
        batch, _, width = x.shape
        expect(a=(a, x.shape if a.dim() > 1 else (width,)), state=(state, (batch, width)))
        if torch.is_grad_enabled() and any(value.requires_grad for value in (a, x, state)):
            h, last = _Scan.apply(a, x, state)
        else:
            h, last, _ = _forward(a, x, state)
    return h.to(asked), packed(last)


def _plain(x: Tensor) -> Tensor:
    """x as C reads it: contiguous, not conjugated by a flag."""
    return x.resolve_conj().contiguous()


def _built(a: Tensor, x: Tensor) -> tuple[Library, _Text]:
    """The library, and the text as it reads it: real numbers, two for a complex one."""
    pairs, real = x.is_complex(), x.dtype.to_real() if x.is_complex() else x.dtype
    width = x.shape[2] * (1 + pairs)
    built = library(SOURCE, real, PAIRS=pairs, FIXED=a.dim() == 1, LANES=lanes(width, real))
    return built, _Text(*x.shape[:2], width, pointer(a))


def _forward(a: Tensor, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """h, the last state, and what the backward pass needs."""
    a, x, first = _plain(a), _plain(x), _plain(state)
    last, h = first.clone(), torch.empty_like(x)
    built, text = _built(a, x)
    built.forward(ctypes.byref(text), pointer(x), pointer(last), pointer(h), torch.get_num_threads())
    return h, last, (a, h, first)


class _Scan(torch.autograd.Function):
    """`apply(a, x, state)`, all of one dtype -> h and the last one."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, last, kept = _forward(a, x, state)
        ctx.save_for_backward(*kept)
        return h, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dh: Tensor, dlast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, first = ctx.saved_tensors
        dh, dstate, dx = (
            _plain(dh),
            dlast.resolve_conj().clone(memory_format=torch.contiguous_format),
            torch.empty_like(h),
        )
        da = torch.empty_like(h if a.dim() > 1 else first)
        built, text = _built(a, h)
        given = (h, first, dh, dstate, dx, da)
        built.backward(ctypes.byref(text), *(pointer(x) for x in given), torch.get_num_threads())
        return da if a.dim() > 1 else da.sum(0), dx, dstate
