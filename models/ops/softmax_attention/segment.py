"""Softmax attention of a segment compiled, forward and back; its positions are turned on the way. The C lies in `segment.c`.

Of 64 rows torch's kernel computes less than it takes to turn, part and join what goes in and what comes back.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.dense.rotary import circle
from models.ops.native_build import REGISTER, compiled, lanes, remembered
from models.ops.providers import NotCovered, note

SOURCE = Path(__file__).with_name("segment.c")
KINDS = (torch.float32, torch.float64)
MOST = 256  # rows and columns whose shares are worth keeping


class _Rows(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("apart", ctypes.c_long), ("down", ctypes.c_long)]


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("texts", "rows", "columns", "heads", "width")]
    _fields_ += [("scale", ctypes.c_double)]
    _fields_ += [(name, _Rows) for name in ("q", "k", "v", "y")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("cosine", "sine", "shares")] + [("causal", ctypes.c_int)]


def inside(qkv: Tensor, heads: int) -> Tensor | None:
    """Causal attention of q, k and v side by side [n, r, 3 D], turned to places 0 .. r - 1: [n, r, D].

    None where that is not covered: half precision, long segments, odd widths of heads, off the CPU, without a compiler.
    """
    width = qkv.shape[-1] // 3
    if not covered(qkv, width // heads, qkv.shape[1]):
        return None
    note("native")
    return _Attention.apply(qkv.contiguous(), None, heads, *_tables(qkv.shape[1], width // heads // 2, qkv.dtype))


def across(q: Tensor, held: Tensor, heads: int) -> Tensor:
    """What queries q [n, r, D] find among all keys and values, side by side [n, m, 2 D]: [n, r, D]."""
    if covered(q, q.shape[-1] // heads, max(q.shape[1], held.shape[1])) and held.dtype is q.dtype:
        return _Attention.apply(q.contiguous(), held if held.stride(-1) == 1 else held.contiguous(), heads, None, None)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, *held.chunk(2, -1)))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def covered(x: Tensor, width: int, longest: int) -> bool:
    """Whether heads of `width` numbers like x over at most `longest` rows are compiled."""
    if not x.is_cpu or x.dtype not in KINDS or not x.numel() or torch.compiler.is_compiling():
        return False
    return longest <= MOST and width % lanes(REGISTER, x.dtype) == 0 and _functions(x.dtype) is not None


@remembered
def _functions(kind: torch.dtype) -> tuple[Any, Any] | None:
    try:
        side = lanes(REGISTER, kind)
        named = (("segment_forward", "pi"), ("segment_backward", "ppppi"))
        return tuple(compiled(SOURCE, kind, name, types, LANES=side) for name, types in named)
    except NotCovered:
        return None


@remembered
def _tables(time: int, half: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [time, half] of places 0 .. time - 1."""
    return circle(0, time, 1, half, kind, None)


def _rows(x: Tensor, column: int = 0) -> _Rows:
    """Where a tensor [n, r, ..] lies, from a column on."""
    return _Rows(x.data_ptr() + column * x.element_size(), x.stride(0), x.stride(1))


def _parts(q: Tensor, held: Tensor | None) -> tuple[_Rows, _Rows, _Rows]:
    """Where queries, keys and values lie, or their gradients."""
    if held is None:
        return tuple(_rows(q, part * (q.shape[-1] // 3)) for part in range(3))
    return _rows(q), _rows(held), _rows(held, held.shape[-1] // 2)


def _text(q: Tensor, held: Tensor | None, y: Tensor, shares: Tensor, heads: int, tables: tuple) -> _Text:
    columns, width = (q if held is None else held).shape[1], y.shape[-1] // heads
    places = (None if x is None else x.data_ptr() for x in (*tables, shares))
    sizes = len(q), q.shape[1], columns, heads, width, 1 / math.sqrt(width)
    return _Text(*sizes, *_parts(q, held), _rows(y), *places, held is None)


class _Attention(torch.autograd.Function):
    """`apply(qkv, None, heads, cosine, sine)` or `apply(q, held, heads, None, None)` -> y [n, r, D]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, held: Tensor | None, heads: int, *tables: Tensor | None) -> Tensor:
        count, rows, wide = q.shape
        columns = rows if held is None else held.shape[1]
        y = q.new_empty(count, rows, wide // 3 if held is None else wide)
        side = lanes(REGISTER, q.dtype)
        shares = q.new_empty(count, heads, rows, columns + -columns % side)
        text = _text(q, held, y, shares, heads, tables)
        _functions(q.dtype)[0](ctypes.byref(text), torch.get_num_threads())
        ctx.save_for_backward(q, held, shares)
        ctx.heads, ctx.tables = heads, tables
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, held, shares = ctx.saved_tensors
        dy = dy.contiguous()
        dq, d_held = torch.empty_like(q), None if held is None else held.new_empty(held.shape)
        text, found = _text(q, held, dy, shares, ctx.heads, ctx.tables), _parts(dq, d_held)
        run = _functions(q.dtype)[1]
        run(ctypes.byref(text), *(ctypes.addressof(one) for one in found), torch.get_num_threads())
        return dq, d_held, None, None, None
