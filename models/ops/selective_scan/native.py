"""Mamba's selective scan compiled: token by token, the channels of a register side by side. The C lies in `native.c`."""

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
    in_kind,
    kind_of,
    lanes,
    library,
    pointer,
    remembered,
    without_autocast,
)

SOURCE = Path(__file__).with_name("native.c")
STEP = 16  # tokens between two states that the backward pass starts from; STEP in native.c
GROUP = 128  # channels that one thread walks backward: whatever the number of threads, sums are made in one order


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "channels")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "delta", "A", "B", "C")]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("x", "delta", "A", "B", "C")]


def native(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.ops.selective_scan.recurrence.selective` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    dtype, kind = x.dtype, kind_of(x)
    with without_autocast():
        x, delta, A, B, C, state = in_kind(kind, x, delta, A, B, C, state)
        state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1]) if state is None else state
        if not x.numel():
            return x.to(dtype), state
        (batch, time, channels), (_, states) = x.shape, A.shape
        expect(delta=(delta, x.shape), A=(A, (channels, states)), state=(state, (batch, channels, states)))
        expect(B=(B, (batch, time, states)), C=(C, (batch, time, states)))
        inputs = (x, delta, A.mT, B, C, state.mT)
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            y, state = _SelectiveScan.apply(*inputs)
        else:
            y, state, _ = _forward(*inputs, keep=False)
    return y if y.dtype is dtype else y.to(dtype), state.mT


def _macros(states: int, channels: int, kind: torch.dtype) -> dict[str, int]:
    return {"N": states, "LANES": lanes(channels, kind)}


@remembered
def _reader(states: int, channels: int, kind: torch.dtype) -> Any:
    """The compiled forward pass of so many states and channels."""
    return compiled(SOURCE, kind, "forward", "pppppi", **_macros(states, channels, kind))


def _text(x: Tensor, *others: Tensor) -> _Text:
    return _Text(*x.shape, *(address(value) for value in (x, *others)))


def _forward(x, delta, A, B, C, state, keep: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the last state [b, N, d], and what the backward pass needs; A [N, d], state [b, N, d]."""
    inputs = [value.contiguous() for value in (x, delta, A, B, C)]
    before, y = state.contiguous(), torch.empty_like(inputs[0])
    after = torch.empty_like(before)
    kept = x.new_empty(x.shape[0], -(-x.shape[1] // STEP), *A.shape) if keep else None
    read, text = _reader(A.shape[0], x.shape[2], x.dtype), ctypes.byref(_text(*inputs))
    read(text, before.data_ptr(), after.data_ptr(), y.data_ptr(), address(kept), torch.get_num_threads())
    return y, after, (*inputs, kept)


class _SelectiveScan(torch.autograd.Function):
    """`apply(x, delta, A, B, C, state)` -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, state, kept = _forward(*inputs, keep=True)
        ctx.save_for_backward(*kept)
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        *inputs, kept = ctx.saved_tensors
        x, delta, A, B, C = inputs
        dstate, dy, groups = (
            dlast.clone(memory_format=torch.contiguous_format),
            dy.contiguous(),
            -(-x.shape[2] // GROUP),
        )
        dx, ddelta, dA = torch.empty_like(x), torch.empty_like(x), torch.zeros_like(dstate)
        dB, dC = (B.new_empty(groups, *B.shape) for _ in range(2))
        gradients = _Gradients(*(address(value) for value in (dx, ddelta, dA, dB, dC)))
        library(SOURCE, x.dtype, **_macros(A.shape[0], x.shape[2], x.dtype)).backward(
            ctypes.byref(_text(*inputs)), pointer(kept), pointer(dy), pointer(dstate), ctypes.byref(gradients), groups,
            torch.get_num_threads(),
        )  # fmt: skip
        return dx, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), dstate
