"""Linear systems that are the same at every token, compiled: the laws token by token. The C lies in `native.c`.

Channels lie side by side in vectors, and what they share over rows and tokens is summed by whoever walks them: threads part
channels alone, so that their number changes no digit.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.convolution.native_step import SYSTEM, step
from models.ops.native_build import REGISTER, expect, kind_of, lanes, library, pointer
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
PIECE = 32  # tokens between two states that the backward pass starts from; PIECE in native.c
EVEN = 2  # numbers of a channel that a system without degrees takes at once; TOGETHER in native.c


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "channels", "n")]
    _fields_ += [("x", ctypes.c_void_p), ("system", ctypes.c_void_p * SYSTEM)]


class _Gradients(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("system", ctypes.c_void_p * SYSTEM)]


def native(
    x: Tensor,
    forget: Tensor,
    write: Tensor,
    read: Tensor,
    erase: tuple[Tensor, Tensor] | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.convolution.recurrence.recurrence` compiled; same shapes.

    Raises NotCovered off the CPU and where no library can be built.
    """
    y, state = _computed(x, (forget, write, read, *(erase or ())), 1, None if state is None else state[:, None])
    return y, state[:, 0]


def liquid(
    x: Tensor, forget: Tensor, write: Tensor, read: Tensor, degree: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.ops.convolution.liquid_recurrence.recurrence` compiled; same shapes; raises what `native` raises."""
    return _computed(x, (forget, write, read), degree, state)


def _computed(x: Tensor, system: tuple[Tensor, ...], degree: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the last state [b, P, d, n, 2], in the precision of the system."""
    if (found := step(x, state, system, degree)) is not None:
        return found
    kind_of(x)
    forget = system[0]
    dtype, kind = x.dtype, forget.real.dtype
    with torch.autocast("cpu", enabled=False):
        x, system = x.to(kind), [one.to(forget.dtype) for one in system]
        shape = (len(x), degree, *forget.shape, 2)
        state = x.new_zeros(shape) if state is None else state.to(kind)
        if not x.numel():
            return x.to(dtype), state
        expect(x=(x, (*x.shape[:2], len(forget))), state=(state, shape))
        expect(**dict(zip(("write", "read", "u", "v"), ((one, forget.shape) for one in system[1:]), strict=False)))
        inputs = (x, state, *system)
        if torch.is_grad_enabled() and any(one.requires_grad for one in inputs):
            y, state = _Walk.apply(*inputs)
        else:
            y, state, _ = _forward(*inputs, keep=False)
    return y.to(dtype), state


def _plain(x: Tensor) -> Tensor:
    """x as C reads it: contiguous, not conjugated by a flag."""
    return x.resolve_conj().contiguous()


def _built(x: Tensor, state: Tensor, system: tuple[Tensor, ...]) -> tuple[Library, Any]:
    """The library, and the text as it reads it."""
    macros = {"DEGREE": state.shape[1], "ERASE": len(system) == SYSTEM}
    built = library(SOURCE, x.dtype, LANES=lanes(REGISTER, x.dtype), **macros)
    return built, _Text(*x.shape, state.shape[3], pointer(x), _pointers(system))


def _pointers(system: tuple[Tensor, ...]) -> Any:
    return (ctypes.c_void_p * SYSTEM)(*(one.data_ptr() for one in system))


def _forward(x: Tensor, state: Tensor, *system: Tensor, keep: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the last state, and what the backward pass needs."""
    x, system = x.contiguous(), tuple(_plain(one) for one in system)
    y, state = torch.empty_like(x), state.clone(memory_format=torch.contiguous_format)
    (batch, time, channels), (degree, n) = x.shape, (state.shape[1], state.shape[3])
    kept = seen = None
    if keep:
        wide = lanes(REGISTER, x.dtype)
        kept = x.new_empty(-(-channels // wide), batch, -(-time // PIECE), n + n % EVEN, degree, 2, wide)
        seen = torch.empty_like(x) if len(system) == SYSTEM else None
    built, text = _built(x, state, system)
    built.forward(ctypes.byref(text), pointer(state), pointer(y), pointer(seen), pointer(kept), torch.get_num_threads())
    return y, state, (x, kept, seen, *system)


class _Walk(torch.autograd.Function):
    """`apply(x, state, a, b, c)`, or with u and v behind them -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, state, kept = _forward(*inputs, keep=True)
        ctx.save_for_backward(*kept)
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        x, kept, seen, *system = ctx.saved_tensors
        dy, dstate, dx = dy.contiguous(), dlast.clone(memory_format=torch.contiguous_format), torch.empty_like(x)
        own = [torch.empty_like(one) for one in system]
        built, text = _built(x, dstate, system)
        given = _Gradients(pointer(dx), _pointers(own))
        built.backward(
            ctypes.byref(text), pointer(kept), pointer(seen), pointer(dy), pointer(dstate), ctypes.byref(given),
            torch.get_num_threads(),
        )  # fmt: skip
        return dx, dstate, *own
