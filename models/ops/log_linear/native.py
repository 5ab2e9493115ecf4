"""Log-linear attention compiled: chunks as products of small matrices, and the counter of states between. C in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.log_linear.recurrence import State
from models.ops.native_build import expect, kind_of, lanes, library, pointer
from models.ops.scan.native import Law, matrix_state

SOURCE = Path(__file__).with_name("native.c")
CHUNK = 64  # tokens of a chunk without a comparison
NARROW, SHORT, LONG = 16, 16, 32
REGISTER = 64  # a multiple of what any register holds


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "shared", "count", "levels")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "k", "v", "weights", "a", "b", "table", "turns")]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "k", "v", "weights", "a", "b", "table", "turns")]


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor | None = None,
    compare: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.log_linear.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    (batch, time, heads, values), keys, levels, dtype, kind = (
        v.shape,
        q.shape[-1],
        weights.shape[-1],
        v.dtype,
        kind_of(q),
    )
    with torch.autocast("cpu", enabled=False):
        q, k, v, weights, log_forget = (x.to(kind) for x in (q, k, v, weights, log_forget))
        rate = None if rate is None else rate.to(kind)
        buckets, count = (q.new_zeros(batch, heads, levels - 1, keys, values), 0) if state is None else state
        buckets = buckets.to(kind)
        if not v.numel():
            return v.to(dtype), (buckets, count)
        if q.shape[2] != k.shape[2] or q.shape[2] not in (1, heads) or compare:
            q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
        gate = (batch, time, heads)
        expect(q=(q, (batch, time, q.shape[2], keys)), k=(k, q.shape), weights=(weights, (*gate, levels)))
        expect(
            log_forget=(log_forget, gate), rate=(rate, gate), state=(buckets, (batch, heads, levels - 1, keys, values))
        )
        if compare:
            given = (None, None, v, weights, None, None, *_compared(q, k, log_forget, rate, count), buckets)
        else:
            given = (q, k, v, weights, log_forget, rate, None, None, buckets)
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
            y, buckets = _LogLinear.apply(*given, keys, count)
        else:
            y, buckets, _ = _forward(*given, keys, count, train=False)
    return y.to(dtype), (buckets, count + time)


def _chunk(keys: int, compare: bool) -> int:
    return CHUNK if not compare else SHORT if keys <= NARROW else LONG


def _compared(q: Tensor, k: Tensor, log_forget: Tensor, rate: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """What tokens do under a comparison: the table [P | R] [b, n, C, h, w] and the turns [W^T | M] [b, n, h, k, w].

    The matrix state's own law tells it, for it is linear in values and state: each token of a chunk writes a number of its own,
    1 in the column of its place, and the state before the chunk is the identity, in columns behind.
    """
    keys, heads = q.shape[-1], q.shape[2]
    size = _chunk(keys, True)
    width = size + keys + -(size + keys) % lanes(REGISTER, q.dtype)
    past = count % size
    ends = past, -(past + q.shape[1]) % size
    q, k = (F.pad(x, (0, 0, 0, 0, *ends)).unflatten(1, (-1, size)) for x in (q, k))
    rate = torch.ones_like(log_forget) if rate is None else rate
    log_forget, rate = (F.pad(x, (0, 0, *ends)).unflatten(1, (-1, size)) for x in (log_forget, rate))
    batch, pieces = q.shape[:2]
    q, k, log_forget, rate = (x.flatten(0, 1) for x in (q, k, log_forget, rate))
    writes = torch.eye(size, width, dtype=q.dtype)[:, None].expand(batch * pieces, size, heads, width)
    before = torch.eye(width, dtype=q.dtype)[size : size + keys].expand(batch * pieces, heads, keys, width)
    table, turns = matrix_state(q, k, k, writes, log_forget, rate, before, Law(1, True, False, True))
    return table.unflatten(0, (batch, pieces)), turns.unflatten(0, (batch, pieces))


def _built(v: Tensor, keys: int, compare: bool) -> ctypes.CDLL:
    macros = {"K": keys, "V": v.shape[-1], "LANES": lanes(REGISTER, v.dtype)}
    built = library(SOURCE, v.dtype, **macros, CHUNK=_chunk(keys, compare), COMPARE=compare)
    built.slots.restype = ctypes.c_long
    return built


def _text(inputs: tuple[Tensor | None, ...], count: int) -> _Text:
    q, v, weights = inputs[0], inputs[2], inputs[3]
    batch, time, heads = v.shape[:3]
    shared = q is not None and q.shape[2] < heads
    return _Text(batch, time, heads, shared, count, weights.shape[-1], *(pointer(x) for x in inputs))


def _forward(q, k, v, weights, log_forget, rate, table, turns, buckets, keys: int, count: int, train: bool):
    """y, the last buckets, and what the backward pass needs: the inputs as C reads them, the scores, the states kept."""
    compare, decay = table is not None, None if log_forget is None else log_forget.exp()
    inputs = tuple(None if x is None else x.contiguous() for x in (q, k, v, weights, decay, rate, table, turns))
    (batch, time, heads, _), size = v.shape, _chunk(keys, compare)
    built, broad, tall = (
        _built(v, keys, compare),
        *(-(-x // lanes(REGISTER, v.dtype)) * lanes(REGISTER, v.dtype) for x in (v.shape[-1], keys)),
    )
    scores = None if compare else v.new_empty(batch, q.shape[2], -(-(count % size + time) // size), size, size)
    slots = built.slots(*(ctypes.c_long(x) for x in (count, time, weights.shape[-1]))) if train else 0
    kept = v.new_empty(batch, heads, slots, tall, broad) if train else None
    first, y, last = (
        buckets.contiguous(),
        torch.empty_like(inputs[2]),
        torch.empty_like(buckets, memory_format=torch.contiguous_format),
    )
    built.forward(
        ctypes.byref(_text(inputs, count)),
        *(pointer(x) for x in (first, scores, y, last, kept)),
        torch.get_num_threads(),
    )
    return y, last, (*inputs, scores, kept)


class _LogLinear(torch.autograd.Function):
    """`apply(q, k, v, weights, log_forget, rate, table, turns, buckets, keys, count)` -> y and the last buckets."""

    @staticmethod
    def forward(ctx: Any, *given):
        y, last, kept = _forward(*given, train=True)
        ctx.save_for_backward(*kept)
        ctx.keys, ctx.count = given[-2:]
        return y, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, scores, kept = ctx.saved_tensors
        q, _, v, *_ = inputs
        dstate, dy = dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        slopes = [
            None if x is None else torch.zeros_like(x) if i > 5 else torch.empty_like(x) for i, x in enumerate(inputs)
        ]
        of_scores = None
        if q is not None:
            slopes[:2] = (v.new_empty(*v.shape[:3], ctx.keys) for _ in range(2))
            of_scores = v.new_empty(*v.shape[:1], v.shape[2], *scores.shape[2:])
        _built(v, ctx.keys, q is None).backward(
            ctypes.byref(_text(tuple(inputs), ctx.count)), *(pointer(x) for x in (scores, kept, dy, dstate, of_scores)),
            ctypes.byref(_Gradients(*(pointer(x) for x in slopes))), torch.get_num_threads(),
        )  # fmt: skip
        if q is not None and q.shape[2] < v.shape[2]:
            slopes[:2] = (x.sum(2, keepdim=True) for x in slopes[:2])
        return *slopes, dstate, None, None
