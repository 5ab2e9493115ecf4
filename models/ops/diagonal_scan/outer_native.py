"""The diagonal recurrence of outer products compiled: token by token, channels side by side. The C lies in `outer_native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, kind_of, lanes, library, pointer
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("outer_native.c")
STEP = 16  # tokens between two states that the backward pass starts from; STEP in outer_native.c
GROUP = 128  # channels that one thread walks backward: whatever the number of threads, sums are made in one order
NAMES = ("u", "f", "k", "e", "q")


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "channels")]
    _fields_ += [(name, ctypes.c_void_p) for name in NAMES]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in NAMES]


def native(u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.diagonal_scan.recurrence.outer_recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    dtype, kind = u.dtype, kind_of(u)
    with torch.autocast("cpu", enabled=False):
        u, f, k, e, q = (value.to(kind) for value in (u, f, k, e, q))
        (batch, time, channels), states = u.shape, k.shape[2]
        state = u.new_zeros(batch, states, channels) if state is None else state.to(kind)
        if not u.numel():
            return u.to(dtype), state
        own = (batch, time, states)
        expect(f=(f, u.shape), k=(k, own), e=(e, own), q=(q, own), state=(state, (batch, states, channels)))
        inputs = (u, f, k, e, q, state)
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            y, state = _OuterScan.apply(*inputs)
        else:
            y, state, _ = _forward(*inputs, keep=False)
    return y.to(dtype), state


def _built(u: Tensor, k: Tensor) -> Library:
    return library(SOURCE, u.dtype, N=k.shape[2], LANES=lanes(u.shape[2], u.dtype))


def _forward(u, f, k, e, q, state, keep: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the last state, and what the backward pass needs."""
    inputs = [value.contiguous() for value in (u, f, k, e, q)]
    state, y = state.clone(memory_format=torch.contiguous_format), torch.empty_like(inputs[0])
    kept = u.new_empty(u.shape[0], -(-u.shape[1] // STEP), *state.shape[1:]) if keep else None
    text = _Text(*u.shape, *(pointer(value) for value in inputs))
    _built(u, k).forward(ctypes.byref(text), pointer(state), pointer(y), pointer(kept), torch.get_num_threads())
    return y, state, (*inputs, kept)


class _OuterScan(torch.autograd.Function):
    """`apply(u, f, k, e, q, state)` -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, state, kept = _forward(*inputs, keep=True)
        ctx.save_for_backward(*kept)
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        *inputs, kept = ctx.saved_tensors
        u, k = inputs[0], inputs[2]
        dstate, dy, groups = (
            dlast.clone(memory_format=torch.contiguous_format),
            dy.contiguous(),
            -(-u.shape[2] // GROUP),
        )
        du, df = torch.empty_like(u), torch.empty_like(u)
        shared = [k.new_empty(groups, *k.shape) for _ in range(3)]
        text = _Text(*u.shape, *(pointer(value) for value in inputs))
        gradients = _Gradients(*(pointer(value) for value in (du, df, *shared)))
        _built(u, k).backward(
            ctypes.byref(text), pointer(kept), pointer(dy), pointer(dstate), ctypes.byref(gradients), groups,
            torch.get_num_threads(),
        )  # fmt: skip
        return du, df, *(part.sum(0) for part in shared), dstate
