"""Matrix states in chunks compiled: products of small matrices inside a chunk, states between. The C lies in `native.c`.

Where a state is wider than the registers, a chunk's products do more with what lies in the cache than the law token by token.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, lanes, library, pointer, whole_vectors
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")
INPUTS = ("q", "k", "v", "weights", "a", "b", "table", "turns")


class Inputs(NamedTuple):
    """What a text gives, in one dtype and float32 or float64; None for what its form does not have (`native.c`)."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor
    weights: Tensor
    log_forget: Tensor | None
    rate: Tensor | None
    table: Tensor | None
    turns: Tensor | None
    states: Tensor  # [b, h, levels - 1, k, v]


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "shared", "count", "levels")]
    _fields_ += [(name, ctypes.c_void_p) for name in INPUTS]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in INPUTS]


def in_chunks(given: Inputs, size: int, count: int = 0) -> tuple[Tensor, Tensor]:
    """y [b, t, h, v] and the last states, in chunks of `size` tokens, a power of two; `count` tokens came before.

    Raises NotCovered where no library can be built.
    """
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        return _Chunks.apply(*given, size, count)
    return _forward(given, size, count, train=False)[:2]


def _built(given: Inputs, size: int) -> Library:
    keys, values = given.states.shape[-2:]
    form = {"CHUNK": size, "COMPARE": given.table is not None}
    built = library(SOURCE, given.v.dtype, K=keys, V=values, LANES=lanes(REGISTER, given.v.dtype), **form)
    built.slots.returns(ctypes.c_long)
    return built


def _text(given: Inputs, count: int) -> _Text:
    batch, time, heads = given.v.shape[:3]
    shared = given.q is not None and given.q.shape[2] < heads
    return _Text(batch, time, heads, shared, count, given.states.shape[2] + 1, *(pointer(x) for x in given[:-1]))


def _forward(given: Inputs, size: int, count: int, train: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the last states, and what the backward pass needs: the inputs as C reads them, the scores, the states kept."""
    given = Inputs(*(None if x is None else x.contiguous() for x in given))
    given = given._replace(log_forget=None if given.log_forget is None else given.log_forget.exp())
    (batch, time, heads, values), keys = given.v.shape, given.states.shape[-2]
    built, new = _built(given, size), given.v.new_empty
    pieces = -(-(count % size + time) // size)
    scores = None if given.q is None else new(batch, given.q.shape[2], pieces, size, size)
    slots = built.slots(*(ctypes.c_long(x) for x in (count, time, given.states.shape[2] + 1))) if train else 0
    kept = new(batch, heads, slots, *(whole_vectors(x, given.v.dtype) for x in (keys, values))) if train else None
    y, last = torch.empty_like(given.v), torch.empty_like(given.states)
    room = (pointer(x) for x in (given.states, scores, y, last, kept))
    built.forward(ctypes.byref(_text(given, count)), *room, torch.get_num_threads())
    return y, last, (*given, scores, kept)


class _Chunks(torch.autograd.Function):
    """`apply(*inputs, size, count)` -> y and the last states."""

    @staticmethod
    def forward(ctx: Any, *given):
        y, last, kept = _forward(Inputs(*given[:-2]), *given[-2:], train=True)
        ctx.save_for_backward(*kept)
        ctx.size, ctx.count = given[-2:]
        return y, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, scores, kept = ctx.saved_tensors
        given = Inputs(*inputs)
        (batch, _, heads, _), shared = given.v.shape, given.q is not None and given.q.shape[2] < given.v.shape[2]
        dstates, dy = dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        slopes = [None if x is None else torch.empty_like(x) for x in given[:-1]]
        if shared:  # each head's by itself
            slopes[:2] = (given.v.new_empty(*given.v.shape[:3], x.shape[-1]) for x in given[:2])
        slopes[-2:] = (
            None if x is None else torch.zeros_like(x) for x in given[-3:-1]
        )  # nothing comes from beyond the text
        of_scores = None if scores is None else scores.new_empty(batch, heads, *scores.shape[2:])
        _built(given, ctx.size).backward(
            ctypes.byref(_text(given, ctx.count)), *(pointer(x) for x in (scores, kept, dy, dstates, of_scores)),
            ctypes.byref(_Gradients(*(pointer(x) for x in slopes))), torch.get_num_threads(),
        )  # fmt: skip
        if shared:
            slopes[:2] = (x.sum(2, keepdim=True) for x in slopes[:2])
        return *slopes, dstates, None, None
