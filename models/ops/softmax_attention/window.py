"""Softmax attention in a window compiled, forward and back, with a prefix that all tokens see. The C lies in `window.c`."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, compiled, expect, in_kind, kind_of, lanes, remembered, without_autocast
from models.ops.providers import NotCovered

SOURCE = Path(__file__).with_name("window.c")
Prefix = tuple[Tensor, Tensor]


class _Rows(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p)]
    _fields_ += [(name, ctypes.c_long) for name in ("apart", "down", "aside")]


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "before", "heads", "prefix", "window", "D", "V")]
    _fields_ += [("scale", ctypes.c_double)]
    _fields_ += [(name, _Rows) for name in ("q", "k", "v", "asked", "prefix_k", "prefix_v", "y")]
    _fields_ += [("logs", ctypes.c_void_p)]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, _Rows) for name in ("y", "q", "k", "v", "asked", "prefix_k", "prefix_v")]


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    prefix: Prefix | None = None,
    prefix_query: Tensor | None = None,
) -> Tensor:
    """`recurrence.recurrence` in a window, compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered without a window, off the CPU, inside torch.compile and where no library can be built.
    """
    if window is None:
        raise NotCovered("Provider 'native' computes attention in a window; use provider='sdpa' where there is none.")
    if torch.compiler.is_compiling():
        raise NotCovered("Provider 'native' cannot be compiled again; use provider='sdpa'.")
    kind, dtype, width = kind_of(q), v.dtype, v.shape[-1]
    if not q.numel() or not v.numel():
        return v.new_empty(*q.shape[:3], width)
    _expect(q, k, v, prefix, prefix_query)
    prefix = prefix if prefix and prefix[0].shape[1] else None
    with without_autocast():
        given = in_kind(kind, q, k, v, prefix_query if prefix else None, *(prefix or (None, None)))
        side = lanes(REGISTER, kind)
        given = tuple(x if x is None or x.shape[-1] % side == 0 else F.pad(x, (0, -x.shape[-1] % side)) for x in given)
        form = min(window, k.shape[1]), 1 / math.sqrt(q.shape[-1])
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
            y = _Window.apply(*given, *form)
        else:
            y = _forward(given, *form)[0]
        y = y if y.shape[-1] == width else y[..., :width]
        return y if dtype is kind else y.to(dtype)


def _expect(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix | None, asked: Tensor | None) -> None:
    (batch, time, heads, head), before = q.shape, k.shape[1] - q.shape[1]
    expect(k=(k, (batch, time + max(0, before), heads, head)), v=(v, (*k.shape[:3], v.shape[-1])))
    if prefix is not None:
        count, own = prefix[0].shape[1], batch if prefix[0].shape[0] > 1 else 1
        expect(prefix_k=(prefix[0], (own, count, heads, head)), prefix_v=(prefix[1], (own, count, *v.shape[2:])))
        expect(prefix_query=(asked, q.shape))


@remembered
def _built(name: str, arguments: str, kind: torch.dtype) -> Any:
    return compiled(SOURCE, kind, name, arguments, LANES=lanes(REGISTER, kind))


def _rows(x: Tensor | None) -> _Rows:
    """Where a tensor [b, t, h, d] lies; one row stands for all of the batch. Its last axis has no steps."""
    if x is None:
        return _Rows()
    apart, down, aside, _ = x.stride()
    return _Rows(x.data_ptr(), 0 if x.shape[0] == 1 else apart, down, aside)


def _text(given: tuple[Tensor | None, ...], y: Tensor | None, logs: Tensor | None, window: int, scale: float) -> _Text:
    q, k, v, _, prefix_k, _ = given
    (batch, time, heads, head), count = q.shape, 0 if prefix_k is None else prefix_k.shape[1]
    sizes = batch, time, k.shape[1] - time, heads, count, window, head, v.shape[-1]
    return _Text(*sizes, scale, *map(_rows, (*given, y)), None if logs is None else logs.data_ptr())


def _forward(given: tuple[Tensor | None, ...], window: int, scale: float, train: bool = False) -> tuple:
    """y, and what the backward pass needs."""
    given = tuple(x if x is None or x.stride(-1) == 1 else x.contiguous() for x in given)
    q, v = given[0], given[2]
    y, logs = v.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(len(q), q.shape[2], q.shape[1]) if train else None
    run = _built("window_forward", "pi", q.dtype)
    run(ctypes.byref(_text(given, y, logs, window, scale)), torch.get_num_threads())
    return y, (*given, logs)


class _Window(torch.autograd.Function):
    """`apply(q, k, v, prefix_query, prefix_k, prefix_v, window, scale)` -> y; all tensors of one dtype, or None."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, kept = _forward(inputs[:6], *inputs[6:], train=True)
        ctx.save_for_backward(*kept)
        ctx.form = inputs[6:]
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *given, logs = ctx.saved_tensors
        dy, batch = dy if dy.stride(-1) == 1 else dy.contiguous(), len(given[0])
        found = [None if x is None else x.new_empty(batch, *x.shape[1:]) for x in given]
        text, room = _text(tuple(given), None, logs, *ctx.form), _Gradients(*map(_rows, (dy, *found)))
        _built("window_backward", "ppi", logs.dtype)(ctypes.byref(text), ctypes.byref(room), torch.get_num_threads())
        shared = (x is not None and len(x) < batch for x in given)
        return *(g.sum(0, keepdim=True) if s else g for g, s in zip(found, shared, strict=True)), None, None
