"""The matrix state's law compiled: token by token, the state in the processor's first cache. The C lies in `native.c`.

Larger states with one gate a head, or none, train in pieces of a few tokens instead (`pieces/delta_rule.py` where they compare,
`pieces/hebbian.py` where they only write).
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import (
    address,
    compiled,
    expect,
    in_kind,
    kind_of,
    lanes,
    library,
    pointer,
    remembered,
    without_autocast,
)
from models.ops.scan.pieces.delta_rule import in_pieces
from models.ops.scan.pieces.hebbian import written_in_pieces

SOURCE = Path(__file__).with_name("native.c")
WHOLE, SPLIT = 8, 4  # a value that is no multiple of SPLIT is filled up with zeros to one of WHOLE
STEP = 16  # tokens between two states that the backward pass starts from; STEP in native.c
# Numbers of a state from which training is faster in compiled pieces of so many tokens: where it compares, where it only writes.
LARGE, PIECE = 1024, 16
WRITTEN, LONGER = 256, 32
LARGEST = 1 << 15  # numbers beyond which a text that is only read is faster in plain PyTorch, where nothing is compared


class Law(NamedTuple):
    """Which form of the law is compiled: the macros of `native.c`."""

    decay: int  # 0 none, 1 a head, 2 a key channel
    compare: bool
    before: bool  # the comparison reads the state before it decays
    tied: bool  # what is compared is what is written: one key, one gradient


# Queries, what is compared, what is written, values, the logarithm of what stays, rates and the state.
Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "shared")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "p", "w", "v", "a", "b")]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "p", "w", "v", "a", "b")]


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.scan.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32, states stay there.

    Raises NotCovered off the CPU and where no library can be built.
    """
    decay = 0 if log_forget is None else log_forget.dim() - 2
    return matrix_state(q, k, k, v, log_forget, rate, state, Law(decay, compare, False, True))


def is_slower(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> bool:
    """Whether `chunked` is the faster: no comparison, one gate a head, a state that leaves the first caches, and no gradient."""
    per_channel = log_forget is not None and log_forget.dim() == 4
    if compare or per_channel or q.shape[-1] * v.shape[-1] <= LARGEST:
        return False
    return not _trained(q, k, v, log_forget, rate, state)


def _trained(*inputs: Tensor | None) -> bool:
    """Whether a gradient of any of them is asked for."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def matrix_state(
    q: Tensor,
    p: Tensor,
    w: Tensor,
    v: Tensor,
    log_forget: Tensor | None,
    rate: Tensor | None,
    state: Tensor | None,
    law: Law,
) -> tuple[Tensor, Tensor]:
    """Any form of the law: y [b, t, h, v] and the last state [b, h, k, v], `p` compared and `w` written."""
    if (found := _carried_on((q, p, w, v, log_forget, rate, state), law)) is not None:
        return found
    dtype, kind = q.dtype, kind_of(q)
    batch, time, heads, width = v.shape
    keys = q.shape[-1]
    if (
        width > SPLIT and math.gcd(width, WHOLE) < SPLIT
    ):  # columns side by side would be one or two: they divide the width
        more = (0, -width % WHOLE)
        state = None if state is None else F.pad(state, more)
        y, state = matrix_state(q, p, w, F.pad(v, more), log_forget, rate, state, law)
        return y[..., :width], state[..., :width].clone()
    with without_autocast():
        q, p, w, v, log_forget, rate, state = in_kind(kind, q, p, w, v, log_forget, rate, state)
        if state is None:
            state = q.new_zeros(batch, heads, keys, width)
        if not v.numel():
            return v.to(dtype), state
        if len({x.shape[2] for x in (q, p, w)}) > 1 or q.shape[2] not in (1, heads):
            q, p, w = (x.expand(-1, -1, heads, -1) for x in (q, p, w))
        own, gate = (batch, time, q.shape[2], keys), (batch, time, heads)
        expect(q=(q, own), p=(p, own), w=(w, own), rate=(rate, gate), state=(state, (batch, heads, keys, width)))
        expect(log_forget=(log_forget, (*gate, keys) if law.decay == 2 else gate))
        inputs = (q, p, w, v, log_forget, rate, state)
        if not _trained(*inputs):
            y, state, _ = _forward(*inputs, law, keep=False)
        elif law.decay == 2 or keys * width < (LARGE if law.compare else WRITTEN):
            y, state = _MatrixState.apply(*inputs, law)
        elif law.compare:
            y, state = in_pieces(*inputs, PIECE, law)
        else:
            y, state = written_in_pieces(q, w, v, log_forget, rate, state, LONGER)
    return y if y.dtype is dtype else y.to(dtype), state


def _carried_on(given: Given, law: Law) -> tuple[Tensor, Tensor] | None:
    """`matrix_state` of a text that goes on without a gradient, in one dtype and as C reads it; None for all else.

    What is true of shapes is found out once for each: for a token, asking takes longer than computing.
    """
    q, state = given[0], given[-1]
    kind = q.dtype
    if torch.is_grad_enabled() or state is None or not q.is_cpu or torch.is_autocast_enabled("cpu"):
        return None
    for x in given:
        if x is not None and not (x.dtype is kind and x.is_contiguous()):
            return None
    read = _carrying(tuple(None if x is None else x.shape for x in given), kind, law)
    if read is None:
        return None
    log_forget = given[4]
    decay = None if log_forget is None else log_forget.exp()
    y, after = torch.empty_like(given[3]), torch.empty_like(state)
    text = _text(*given[:4], decay, given[5])
    read(ctypes.byref(text), state.data_ptr(), after.data_ptr(), y.data_ptr(), None, torch.get_num_threads())
    return y, after


@remembered
def _carrying(shapes: tuple[torch.Size | None, ...], kind: torch.dtype, law: Law) -> Any:
    """The compiled forward pass for inputs of these shapes, or None where they are to be checked and laid out first."""
    q, p, w, v, log_forget, rate, state = shapes
    batch, time, heads, width = v
    gate = (batch, time, heads)
    fits = (
        kind in (torch.float32, torch.float64)
        and 0 not in v
        and (width <= SPLIT or math.gcd(width, WHOLE) >= SPLIT)
        and q == p == w
        and q[:2] == v[:2]
        and q[2] in (1, heads)
        and log_forget in (None, (*gate, q[3]) if law.decay == 2 else gate)
        and rate in (None, gate)
        and state == (batch, heads, q[3], width)
    )
    return _reader(q[3], width, kind, law) if fits else None


def _macros(keys: int, width: int, kind: torch.dtype, law: Law) -> dict[str, int]:
    macros = {"K": keys, "V": width, "LANES": lanes(width, kind), "DECAY": law.decay}
    return macros | {"COMPARE": law.compare, "BEFORE": law.before, "TIED": law.tied}


@remembered
def _reader(keys: int, width: int, kind: torch.dtype, law: Law) -> Any:
    """The compiled forward pass of a shape of state."""
    return compiled(SOURCE, kind, "forward", "pppppi", **_macros(keys, width, kind, law))


def _text(q: Tensor, p: Tensor, w: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None) -> _Text:
    batch, time, heads = v.shape[:3]
    return _Text(batch, time, heads, q.shape[2] < heads, *(address(x) for x in (q, p, w, v, a, b)))


def _forward(q, p, w, v, log_forget, rate, state, law: Law, keep: bool) -> tuple[Tensor, Tensor, tuple]:
    """y, the last state, and what the backward pass needs: the inputs as C reads them and, if asked, the states kept."""
    decay = None if log_forget is None else log_forget.exp()
    inputs = [None if x is None else x.contiguous() for x in (q, p, w, v, decay, rate)]
    before, y = state.contiguous(), torch.empty_like(inputs[3])
    after = torch.empty_like(before)
    pieces = -(-v.shape[1] // STEP)
    kept = v.new_empty(*state.shape[:2], pieces, *state.shape[2:]) if keep else None
    read, text = _reader(q.shape[-1], v.shape[-1], q.dtype, law), ctypes.byref(_text(*inputs))
    read(text, before.data_ptr(), after.data_ptr(), y.data_ptr(), address(kept), torch.get_num_threads())
    return y, after, (*inputs, kept)


class _MatrixState(torch.autograd.Function):
    """`apply(q, p, w, v, log_forget, rate, state, law)` -> y and the last state."""

    @staticmethod
    def forward(ctx: Any, q, p, w, v, log_forget, rate, state, law: Law):
        y, state, kept = _forward(q, p, w, v, log_forget, rate, state, law, keep=True)
        ctx.save_for_backward(*kept)
        ctx.law = law
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        *inputs, kept = ctx.saved_tensors
        q, _, _, v, decay, rate = inputs
        law, dstate, dy = ctx.law, dlast.clone(memory_format=torch.contiguous_format), dy.contiguous()
        dq, dw = (v.new_empty(*v.shape[:3], q.shape[-1]) for _ in range(2))
        dp = v.new_empty(dq.shape) if law.compare and not law.tied else None
        dv = torch.empty_like(v)
        da, db = (None if x is None else torch.empty_like(x) for x in (decay, rate))
        text, gradients = _text(*inputs), _Gradients(*(address(x) for x in (dq, dp, dw, dv, da, db)))
        library(SOURCE, q.dtype, **_macros(q.shape[-1], v.shape[-1], q.dtype, law)).backward(
            ctypes.byref(text),
            pointer(kept),
            pointer(dy),
            pointer(dstate),
            ctypes.byref(gradients),
            torch.get_num_threads(),
        )
        if q.shape[2] < v.shape[2]:
            dq, dp, dw = (None if x is None else x.sum(2, keepdim=True) for x in (dq, dp, dw))
        return dq, dp, dw, dv, da, db, dstate, None
