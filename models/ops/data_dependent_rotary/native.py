"""Data-dependent rotary positions compiled: one pass over a text, forward and backward. The C lies in `native.c`.

Nothing of a turned query is kept for the way back: all turns back, and what it was comes from what it was made of.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import (
    REGISTER,
    address,
    compiled,
    expect,
    in_kind,
    kind_of,
    lanes,
    remembered,
    without_autocast,
)

SOURCE = Path(__file__).with_name("native.c")
BLOCK = 64  # tokens to a sum of the biases' gradients; BLOCK in native.c


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "k", "query_bias", "key_bias", "speed", "step")]


class _Gradients(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p) for name in ("dq", "dk", "dmatch", "q", "k", "speed", "step", "biases", "angles")
    ]


def native(
    q: Tensor,
    k: Tensor,
    query_bias: Tensor,
    key_bias: Tensor,
    speed: Tensor,
    step: Tensor,
    angle: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`models.ops.data_dependent_rotary.recurrence.recurrence` compiled; same shapes, dtypes as in `chunked`.

    Raises NotCovered off the CPU and where no library can be built.
    """
    kind, (batch, time, width), (_, _, heads), pairs = kind_of(q), q.shape, step.shape, speed.shape[-1]
    if 2 * pairs > width:
        raise ValueError(f"{pairs} pairs do not fit into {width} numbers.")
    with without_autocast():
        if angle is None:
            angle = q.new_zeros(batch, heads, pairs, dtype=kind)
        given = in_kind(kind, q, k, query_bias, key_bias, speed, step, angle)
        q, k, query_bias, key_bias, speed, step, angle = given
        expect(k=(k, q.shape), query_bias=(query_bias, (heads, width)), key_bias=(key_bias, (heads, width)))
        expect(
            speed=(speed, (batch, time, pairs)), step=(step, (batch, time, heads)), angle=(angle, (batch, heads, pairs))
        )
        if not q.numel():
            turned = q.new_zeros(batch, time, heads, width) + 0 * (q[:, :, None] + k[:, :, None])
            return turned, turned.clone(), turned.sum(-1), angle
        if torch.is_grad_enabled() and any(x.requires_grad for x in given):
            return _Rotary.apply(*given)
        return _forward(*given)[0]


@remembered
def _built(name: str, arguments: str, kind: torch.dtype, width: int, pairs: int) -> Any:
    macros = {"WIDTH": width, "PAIRS": pairs, "LANES": lanes(REGISTER, kind)}
    return compiled(SOURCE, kind, name, arguments, **macros)


def _forward(*given: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What `native` returns, and what the backward pass needs."""
    *inputs, first = (x.contiguous() for x in given)
    (batch, time, width), heads, pairs = inputs[0].shape, inputs[5].shape[2], inputs[4].shape[2]
    angles = first.new_empty(batch, time, heads, pairs)
    q, k = (first.new_empty(batch, time, heads, width) for _ in range(2))
    match = first.new_empty(batch, time, heads)
    turn = _built("forward", "ppppppi", q.dtype, width, pairs)
    room = (address(x) for x in (first, angles, q, k, match))
    turn(ctypes.byref(_text(*inputs)), *room, torch.get_num_threads())
    return (q, k, match, angles[:, -1].clone()), (*inputs, angles)


def _text(*inputs: Tensor) -> _Text:
    return _Text(*inputs[0].shape[:2], inputs[5].shape[2], *(address(x) for x in inputs))


class _Rotary(torch.autograd.Function):
    """`apply(q, k, query_bias, key_bias, speed, step, angle)`, all of one dtype -> what `native` returns."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
        found, kept = _forward(*given)
        ctx.save_for_backward(*kept)
        return found

    @staticmethod
    @by_hand
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        *inputs, angles = ctx.saved_tensors
        q, k, query_bias, _, speed, step = inputs
        dturned, first = (
            [x.contiguous() for x in gradients[:3]],
            gradients[3].clone(memory_format=torch.contiguous_format),
        )
        to = [torch.empty_like(x) for x in (q, k, speed, step)]
        blocks = q.new_empty(len(q), -(-q.shape[1] // BLOCK), step.shape[2], 2, q.shape[2])
        back = _built("backward", "ppppi", q.dtype, q.shape[2], speed.shape[2])
        dangles = torch.empty_like(angles)
        room = _Gradients(*(address(x) for x in (*dturned, *to, blocks, dangles)))
        back(ctypes.byref(_text(*inputs)), address(angles), address(first), ctypes.byref(room), torch.get_num_threads())
        dquery_bias, dkey_bias = blocks.sum((0, 1)).unbind(1)
        return *to[:2], dquery_bias, dkey_bias, *to[2:], first
