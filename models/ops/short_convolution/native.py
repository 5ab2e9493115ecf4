"""The short convolution compiled: token by token, the channels of a register side by side. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, kind_of, lanes, library, pointer
from models.ops.short_convolution.chunked import computed_in

SOURCE = Path(__file__).with_name("native.c")


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "width")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "weight", "bias", "state")]


def native(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.short_convolution.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    y is in autocast's dtype, if that is on. Raises NotCovered off the CPU and where no library can be built.
    """
    kind, asked, given = kind_of(x), computed_in(x), x.dtype
    kernel = weight.shape[-1]
    with torch.autocast("cpu", enabled=False):
        if state is None:
            state = x.new_zeros(x.shape[0], kernel - 1, x.shape[2])
        if not x.numel():
            return x, state.to(given, copy=True)
        x, weight, state = x.to(kind), weight.to(kind), state.to(given).to(kind)
        bias = None if bias is None else bias.to(kind)
        width = x.shape[2]
        expect(weight=(weight, (width, 1, kernel)), bias=(bias, (width,)), state=(state, (len(x), kernel - 1, width)))
        inputs = (x, weight, bias, state)
        if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in inputs):
            y, last = _Convolution.apply(*inputs)
        else:
            y, last, _ = _forward(*inputs)
    return y.to(asked), last.to(given)


def is_slower(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None) -> bool:
    """Whether torch's own is the faster: in half precision, of which it makes no float32."""
    return computed_in(x) not in (torch.float32, torch.float64)


def _built(x: Tensor, kernel: int) -> ctypes.CDLL:
    return library(SOURCE, x.dtype, KERNEL=kernel, LANES=lanes(x.shape[2], x.dtype))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor, tuple]:
    """y, the last inputs, and what the backward pass needs."""
    kernel = weight.shape[-1]
    own = x.contiguous(), weight[:, 0].T.contiguous(), None if bias is None else bias.contiguous(), state.contiguous()
    y = torch.empty_like(own[0])
    text = _Text(*x.shape, *(pointer(one) for one in own))
    _built(x, kernel).forward(ctypes.byref(text), pointer(y), torch.get_num_threads())
    if x.shape[1] >= kernel - 1:
        last = own[0][:, x.shape[1] - kernel + 1 :].clone()
    else:
        last = torch.cat([own[3][:, x.shape[1] :], own[0]], 1)
    return y, last, own


class _Convolution(torch.autograd.Function):
    """`apply(x, weight, bias, state)` -> y and the last inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        y, last, own = _forward(x, weight, bias, state)
        ctx.save_for_backward(*own)
        return y, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, state = ctx.saved_tensors
        (kernel, _), time = weight.shape, x.shape[1]
        dx, dstate = torch.empty_like(x), torch.empty_like(state)
        dweight = x.new_empty(len(x), kernel + 1, x.shape[2])
        text = _Text(*x.shape, *(pointer(one) for one in (x, weight, bias, state)))
        given = (dy.contiguous(), dx, dstate, dweight)
        _built(x, kernel).backward(ctypes.byref(text), *(pointer(one) for one in given), torch.get_num_threads())
        kept = min(time, kernel - 1)
        dx[:, time - kept :] += dlast[:, kernel - 1 - kept :]
        dstate[:, kept:] += dlast[:, : kernel - 1 - kept]
        dweight = dweight.sum(0)
        return dx, dweight[:kernel].T[:, None], None if bias is None else dweight[kernel], dstate
