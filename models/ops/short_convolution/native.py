"""The short convolution compiled: token by token, the channels of a register side by side. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import (
    address,
    compiled,
    expect,
    kind_of,
    lanes,
    library,
    pointer,
    remembered,
    without_autocast,
)
from models.ops.providers import NotCovered, note
from models.ops.recording import Library
from models.ops.short_convolution.chunked import computed_in

SOURCE = Path(__file__).with_name("native.c")


class Text(ctypes.Structure):
    """A batch of texts, as `text.h` has it."""

    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "width")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "weight", "bias", "state")]


def native(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.short_convolution.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    y is in autocast's dtype, if that is on. Raises NotCovered off the CPU and where no library can be built.
    """
    kind, asked, given = kind_of(x), computed_in(x), x.dtype
    kernel = weight.shape[-1]
    with without_autocast():
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


def _built(x: Tensor, kernel: int) -> Library:
    return library(SOURCE, x.dtype, KERNEL=kernel, LANES=lanes(x.shape[2], x.dtype))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor, tuple]:
    """y, the last inputs, and what the backward pass needs."""
    kernel = weight.shape[-1]
    own = x.contiguous(), weight[:, 0].T.contiguous(), None if bias is None else bias.contiguous(), state.contiguous()
    y = torch.empty_like(own[0])
    text = Text(*x.shape, *(address(one) for one in own))
    _built(x, kernel).forward(ctypes.byref(text), pointer(y), torch.get_num_threads())
    return y, after(own[0], own[3]), own


def after(x: Tensor, state: Tensor) -> Tensor:
    """The last inputs behind a text x with these before it."""
    kept = state.shape[1]
    return x[:, x.shape[1] - kept :].clone() if x.shape[1] >= kept else torch.cat([state[:, x.shape[1] :], x], 1)


def heads(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor | None,
    head: int = 1,
    unit: int = 0,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor] | None:
    """SiLU of the convolution [b, t, d] and its last inputs, without a gradient, for a text of any length.

    Its first `unit` channels are brought to unit length in heads of `head` channels, as `l2_norm` does. None where that is
    not covered: with gradients, half precision or autocast, off the CPU, inside torch.compile, without a compiler.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if not x.is_cpu or not x.numel():
        return None
    kind, (batch, time, width), kernel = x.dtype, x.shape, weight.shape[2]
    if state is None:
        state = x.new_zeros(batch, kernel - 1, width)
    if kind not in (torch.float32, torch.float64) or not weight.dtype is state.dtype is kind:
        return None
    run = _heads(width, kernel, kind)
    if run is None or (bias is not None and not (bias.dtype is kind and bias.is_contiguous())):
        return None
    expect(weight=(weight, (width, 1, kernel)), bias=(bias, (width,)), state=(state, (batch, kernel - 1, width)))
    x, weight, state = x.contiguous(), weight.contiguous(), state.contiguous()
    y, last = torch.empty_like(x), torch.empty_like(state)
    text = Text(batch, time, width, x.data_ptr(), weight.data_ptr(), address(bias), state.data_ptr())
    run(ctypes.byref(text), y.data_ptr(), last.data_ptr(), head, unit, eps, torch.get_num_threads())
    note("native")
    return y, last


@remembered
def _heads(width: int, kernel: int, kind: torch.dtype) -> Any:
    """The compiled function of `heads`, or None where it cannot be built."""
    try:
        return compiled(SOURCE, kind, "heads", "ppplldi", KERNEL=kernel, LANES=lanes(width, kind))
    except NotCovered:
        return None


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
        text = Text(*x.shape, *(address(one) for one in (x, weight, bias, state)))
        given = (dy.contiguous(), dx, dstate, dweight)
        _built(x, kernel).backward(ctypes.byref(text), *(pointer(one) for one in given), torch.get_num_threads())
        kept = min(time, kernel - 1)
        dx[:, time - kept :] += dlast[:, kernel - 1 - kept :]
        dstate[:, kept:] += dlast[:, : kernel - 1 - kept]
        dweight = dweight.sum(0)
        return dx, dweight[:kernel].T[:, None], None if bias is None else dweight[kernel], dstate
