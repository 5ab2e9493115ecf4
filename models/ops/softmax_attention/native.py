"""Softmax attention of a single token without a gradient, compiled: what decoding asks. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.native_build import compiled, expect, lanes, remembered
from models.ops.providers import NotCovered, note

SOURCE = Path(__file__).with_name("native.c")
KINDS = (torch.float32, torch.float64)
Part = tuple[Tensor, Tensor, Tensor]  # a query [b, 1, h, d], keys and values [b or 1, n, h, d]


class _Part(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "k", "v")]
    _fields_ += [(name, ctypes.c_long) for name in ("count", "apart")]


def attend(parts: list[Part]) -> Tensor | None:
    """`softmax(q k^T / sqrt(d)) v` [b, 1, h, d] over the keys of all parts at once, each asked by its own query.

    None where that is not covered: with gradients, more than one token, half precision or autocast, off the CPU, inside
    torch.compile, without a compiler.
    """
    first = parts[0][0]
    (batch, time, heads, head), kind = first.shape, first.dtype
    if time != 1 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if not first.is_cpu or kind not in KINDS or not first.numel():
        return None
    if torch.is_autocast_enabled("cpu") or any(x.dtype is not kind for part in parts for x in part):
        return None
    run = _attend(head, kind)
    if run is None:
        return None
    given, kept = (_Part * len(parts))(), []
    for place, (q, k, v) in enumerate(parts):
        rows, count = k.shape[:2]
        expect(q=(q, first.shape), k=(k, (rows if rows == 1 else batch, count, heads, head)), v=(v, k.shape))
        q, k, v = own = q.contiguous(), k.contiguous(), v.contiguous()
        kept.append(own)
        apart = count * heads * head if rows > 1 else 0
        given[place] = _Part(q.data_ptr(), k.data_ptr(), v.data_ptr(), count, apart)
    y, room = first.new_empty(first.shape), first.new_empty(batch * heads * sum(part.count for part in given))
    run(given, len(parts), y.data_ptr(), room.data_ptr(), batch, heads, 1 / math.sqrt(head), torch.get_num_threads())
    note("native")
    return y


@remembered
def _attend(head: int, kind: torch.dtype) -> Any:
    try:
        return compiled(SOURCE, kind, "attend", "plpplldi", D=head, LANES=lanes(head, kind))
    except NotCovered:
        return None
