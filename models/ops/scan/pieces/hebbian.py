"""The matrix state's law without a comparison, trained in pieces of a few tokens, compiled. The C lies in `hebbian.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, address, compiled, lanes, remembered, whole_vectors

SOURCE = Path(__file__).with_name("hebbian.c")
INPUTS = ("q", "w", "v", "a", "b")
APART = 4  # heads with one key go in groups, each with gradients of its own, until so many rows and groups can be shared out


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "groups")]
    _fields_ += [(name, ctypes.c_void_p) for name in INPUTS]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in INPUTS]


def written_in_pieces(
    q: Tensor, w: Tensor, v: Tensor, log_forget: Tensor | None, rate: Tensor | None, state: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """y [b, t, h, v] and the last state [b, h, k, v] of inputs of one dtype, `size` tokens a piece.

    Raises NotCovered where no library can be built.
    """
    return _Written.apply(q, w, v, log_forget, rate, state, size)


@remembered
def _built(
    name: str, arguments: str, kind: torch.dtype, size: int, shape: tuple[int, ...], law: tuple[int, ...]
) -> Any:
    macros = dict(zip(("K", "V", "DECAY", "SHARED"), (*shape, *law), strict=True))
    return compiled(SOURCE, kind, name, arguments, **macros, CHUNK=size, LANES=min(lanes(REGISTER, kind), size))


def _form(q: Tensor, v: Tensor, a: Tensor | None, size: int) -> tuple[Any, ...]:
    """What a compiled function is built for, of these inputs."""
    return v.dtype, size, (q.shape[3], v.shape[3]), (int(a is not None), int(q.shape[2] < v.shape[2]))


def _groups(q: Tensor, v: Tensor) -> int:
    """How many groups the heads go in: what they sum of shared keys must not hang on the number of threads."""
    batch, _, heads = v.shape[:3]
    parts = APART if q.shape[2] < heads else torch.get_num_threads()
    return max(1, min(heads, parts // batch))


def _text(q: Tensor, w: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None) -> _Text:
    return _Text(*v.shape[:3], _groups(q, v), *(address(x) for x in (q, w, v, a, b)))


def _decay(log_forget: Tensor | None) -> Tensor | None:
    """e to the logarithms; where all tokens have the same ones, once for all."""
    if log_forget is None or log_forget.stride()[:2] != (0, 0):
        return None if log_forget is None else log_forget.exp()
    return log_forget[:1, :1].exp().expand(log_forget.shape)


class _Written(torch.autograd.Function):
    """`apply(q, w, v, log_forget, rate, state, size)` -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, q, w, v, log_forget, rate, state, size: int):
        decay = _decay(log_forget)
        inputs = [None if x is None else x.contiguous() for x in (q, w, v, decay, rate)]
        before, y = state.contiguous(), torch.empty_like(inputs[2])
        (batch, time, heads, _), after = v.shape, torch.empty_like(before)
        sides = (whole_vectors(x, v.dtype) for x in before.shape[2:])
        kept = v.new_empty(batch, -(-time // size), heads, *sides)
        read = _built("forward", "pppppi", *_form(q, v, decay, size))
        read(ctypes.byref(_text(*inputs)), *map(address, (before, after, y, kept)), torch.get_num_threads())
        ctx.save_for_backward(*inputs, kept)
        ctx.size = size
        return y, after

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, kept = ctx.saved_tensors
        q, _, v, decay, rate = inputs
        dstate, dy = dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        shared = q.shape[2] < v.shape[2]
        dq, dw = (q.new_empty(*q.shape[:2], _groups(q, v) if shared else q.shape[2], q.shape[3]) for _ in range(2))
        dv, da, db = (torch.empty_like(x) if x is not None else None for x in (v, decay, rate))
        if not ctx.needs_input_grad[3]:
            da = None
        back = _built("backward", "pppppi", *_form(q, v, decay, ctx.size))
        gradients = ctypes.byref(_Gradients(*(address(x) for x in (dq, dw, dv, da, db))))
        back(ctypes.byref(_text(*inputs)), *map(address, (kept, dy, dstate)), gradients, torch.get_num_threads())
        if shared and dq.shape[2] > 1:
            dq, dw = (x.sum(2, keepdim=True) for x in (dq, dw))
        return dq, dw, dv, da, db, dstate, None
