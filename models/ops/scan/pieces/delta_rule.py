"""The matrix state's law with a comparison, in pieces of a few tokens, compiled. The C lies in `delta_rule.c`.

Where a state leaves the registers, products of a piece's tokens with it do more with each load than the law token by token.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import REGISTER, address, compiled, lanes, remembered, whole_vectors

SOURCE = Path(__file__).with_name("delta_rule.c")
INPUTS = ("q", "p", "w", "v", "a", "b")


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "shared")]
    _fields_ += [(name, ctypes.c_void_p) for name in INPUTS]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in INPUTS]


def in_pieces(
    q: Tensor, p: Tensor, w: Tensor, v: Tensor, log_forget: Tensor | None, rate: Tensor | None, state: Tensor,
    size: int, law: tuple[int, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y [b, t, h, v] and the last state [b, h, k, v] of inputs of one dtype, `size` tokens a piece; `law` is DECAY, COMPARE,
    BEFORE and TIED, and does compare.

    Raises NotCovered where no library can be built.
    """
    given = (q, p, w, v, log_forget, rate, state)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        return _Pieces.apply(*given, size, law)
    return _forward(*given, size, law, train=False)[:2]


@remembered
def _built(
    name: str, arguments: str, kind: torch.dtype, keys: int, values: int, size: int, law: tuple[int, ...]
) -> Any:
    macros = dict(zip(("DECAY", "BEFORE", "TIED"), (law[0], *law[2:]), strict=True))
    shape = {"K": keys, "V": values, "CHUNK": size, "LANES": min(lanes(REGISTER, kind), size)}
    return compiled(SOURCE, kind, name, arguments, **shape, **macros)


def _text(q: Tensor, p: Tensor, w: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None) -> _Text:
    batch, time, heads = v.shape[:3]
    return _Text(batch, time, heads, q.shape[2] < heads, *(address(x) for x in (q, p, w, v, a, b)))


def _forward(
    q, p, w, v, log_forget, rate, state, size: int, law: tuple[int, ...], train: bool
) -> tuple[Tensor, Tensor, tuple]:
    """y, the last state, and what the backward pass needs: the inputs as C reads them, the states kept, the errors."""
    decay = None if log_forget is None else log_forget.exp()
    inputs = [None if x is None else x.contiguous() for x in (q, p, w, v, decay, rate)]
    before, y = state.contiguous(), torch.empty_like(inputs[3])
    after, kept, errors = torch.empty_like(before), None, None
    if train:
        (batch, time, heads, values), keys = v.shape, q.shape[-1]
        sides = (whole_vectors(x, v.dtype) for x in (keys, values))
        kept = v.new_empty(batch, heads, -(-time // size), *sides)
        errors = torch.empty_like(y)
    read = _built("forward", "ppppppi", v.dtype, q.shape[-1], v.shape[-1], size, law)
    room = (address(x) for x in (before, after, y, kept, errors))
    read(ctypes.byref(_text(*inputs)), *room, torch.get_num_threads())
    return y, after, (*inputs, kept, errors)


class _Pieces(torch.autograd.Function):
    """`apply(q, p, w, v, log_forget, rate, state, size, law)` -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, *given):
        y, state, kept = _forward(*given, train=True)
        ctx.save_for_backward(*kept)
        ctx.size, ctx.law = given[-2:]
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, kept, errors = ctx.saved_tensors
        q, _, _, v, decay, rate = inputs
        dstate, dy = dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        dq, dw = (v.new_empty(*v.shape[:3], q.shape[-1]) for _ in range(2))
        dp = None if ctx.law[3] else v.new_empty(dq.shape)  # TIED: dw holds both
        dv, da, db = (None if x is None else torch.empty_like(x) for x in (v, decay, rate))
        back = _built("backward", "ppppppi", v.dtype, q.shape[-1], v.shape[-1], ctx.size, ctx.law)
        room = (address(x) for x in (kept, errors, dy, dstate))
        gradients = _Gradients(*(address(x) for x in (dq, dp, dw, dv, da, db)))
        back(ctypes.byref(_text(*inputs)), *room, ctypes.byref(gradients), torch.get_num_threads())
        if q.shape[2] < v.shape[2]:
            dq, dp, dw = (None if x is None else x.sum(2, keepdim=True) for x in (dq, dp, dw))
        return dq, dp, dw, dv, da, db, dstate, None, None
