"""Large-chunk test-time training compiled: a head's weights stay in the caches from chunk to chunk. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.fast_weights.recurrence import State, Weights, first_state, length
from models.ops.native_build import address, expect, in_kind, kind_of, lanes, library, pointer, without_autocast
from models.ops.providers import NotCovered
from models.ops.recording import Library

SOURCE = Path(__file__).with_name("native.c")


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "width", "hidden", "chunk", "place")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "k", "v", "rates", "momentum", "lengths")]


class _Gradients(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("own", "before", "added", "moving", "q", "k", "v", "rates", "momentum", "lengths")
    ]


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rates: Tensor,
    momentum: Tensor | None,
    weights: Weights,
    chunk: int,
    muon: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.fast_weights.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered for Muon, off the CPU and where no library can be built.
    """
    if muon:
        raise NotCovered("Provider 'native' does not orthogonalise what a chunk teaches; use auto or chunked.")
    dtype, kind = q.dtype, kind_of(q)
    with without_autocast():
        q, k, v, rates, momentum, *weights = in_kind(kind, q, k, v, rates, momentum, *weights)
        batch, time, heads, width = q.shape
        hidden = weights[0].shape[-1]
        expect(k=(k, q.shape), v=(v, q.shape), rates=(rates, (*q.shape[:3], 3)), momentum=(momentum, q.shape[:3]))
        for name, one in zip(("W_0", "W_1", "W_2"), weights, strict=True):
            expect(**{name: (one, (heads, hidden, width) if name == "W_1" else (heads, width, hidden))})
        own, before, added, moving, place = first_state(q, tuple(weights)) if state is None else state
        if not q.numel():
            return q.to(dtype), (own, before, added, moving, place)
        own, before, added = (_packed(in_kind(kind, *group)) for group in (own, before, added))
        lengths = torch.cat([length(weights[i]) for i in (0, 2, 1)], dim=-1)[:, 0]
        y, *groups, moving = _FastWeights.apply(
            q, k, v, rates, momentum, lengths, own, before, added, moving.to(kind), (hidden, chunk, place)
        )
        own, before, added = (_unpacked(group, width, hidden) for group in groups)
    return y.to(dtype), (own, before, added, moving, place + time)


def _packed(weights: Weights) -> Tensor:
    """W_0 and W_2 side by side, then W_1: [b, h, 3 d n]."""
    w0, w1, w2 = weights
    return torch.cat([torch.cat([w0, w2], dim=-1).flatten(-2), w1.flatten(-2)], dim=-1)


def _unpacked(packed: Tensor, width: int, hidden: int) -> Weights:
    side, down = packed.split([2 * width * hidden, width * hidden], dim=-1)
    w0, w2 = (half.contiguous() for half in side.unflatten(-1, (width, 2 * hidden)).chunk(2, dim=-1))
    return w0, down.unflatten(-1, (hidden, width)).contiguous(), w2


def _built(kind: torch.dtype, width: int, hidden: int) -> Library:
    return library(SOURCE, kind, LANES=lanes(math.gcd(width, hidden), kind))


def _text(inputs: tuple[Tensor | None, ...], hidden: int, chunk: int, place: int) -> Any:
    batch, time, heads, width = inputs[0].shape
    sizes = batch, time, heads, width, hidden, chunk, place % chunk
    return ctypes.byref(_Text(*sizes, *(address(one) for one in inputs)))


class _FastWeights(torch.autograd.Function):
    """`apply(q, k, v, rates, momentum, lengths, own, before, added, moving, (hidden, chunk, place))` -> y and the last four."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, ...]:
        *tensors, ctx.sizes = given
        inputs = [None if one is None else one.contiguous() for one in tensors[:6]]
        last = [one.clone(memory_format=torch.contiguous_format) for one in tensors[6:]]
        q, own, (hidden, chunk, place) = inputs[0], last[0], ctx.sizes
        (batch, time, heads, width), y, kept = q.shape, torch.empty_like(q), (None, None, None)
        if any(ctx.needs_input_grad):
            pieces = -(-(place % chunk + time) // chunk)
            counts = (pieces, pieces + 1)
            kept = *(own.new_empty(batch, heads, n, own.shape[-1]) for n in counts), own.new_zeros(batch, heads, pieces)
        _built(q.dtype, width, hidden).forward(
            _text(inputs, *ctx.sizes), *map(pointer, (*last, y, *kept)), torch.get_num_threads()
        )
        ctx.save_for_backward(*inputs, *kept)
        return y, *last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, *dlast: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept_own, kept_before, kept_share = ctx.saved_tensors
        q, k, v, rates, momentum, lengths = inputs
        dstate = [one.clone(memory_format=torch.contiguous_format) for one in dlast]
        dinputs = [None if one is None else torch.empty_like(one) for one in (q, k, v, rates, momentum)]
        dlengths, dy = lengths.new_zeros(len(q), *lengths.shape), dy.contiguous()
        gradients = _Gradients(*(address(one) for one in (*dstate, *dinputs, dlengths)))
        _built(q.dtype, q.shape[3], ctx.sizes[0]).backward(
            _text(inputs, *ctx.sizes), *map(pointer, (kept_own, kept_before, kept_share, dy)), ctypes.byref(gradients),
            torch.get_num_threads(),
        )  # fmt: skip
        return *dinputs, dlengths.sum(0), *dstate, None
