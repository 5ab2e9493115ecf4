"""Recurrent cells compiled: the loop over tokens in C, products with the text as one matrix product. The C lies in `native.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.native_build import expect, kind_of, lanes, library, pointer
from models.ops.providers import NotCovered
from models.ops.recording import Library, only_read
from models.ops.recurrent_cell import fused
from models.ops.recurrent_cell.cells import CELLS, inputs

SOURCE = Path(__file__).with_name("native.c")
NUMBERS = {"lstm": 0, "gru": 1, "janet": 2, "slstm": 3}  # CELL in native.c
KEPT = {"slstm": 3}  # what a token keeps for the backward pass beside its gates; of the others one number a unit


class _Text(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads")] + [("inner", ctypes.c_void_p)]


class _Past(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("R", "first", "y", "gates", "kept", "dy")]


def native(
    x: Tensor,
    weight: Tensor | None,
    recurrent: Tensor,
    *,
    cell: str,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    candidate_bias: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.recurrent_cell.recurrence.recurrence` compiled; same shapes and dtypes.

    Raises NotCovered for peepholes and the GRU that resets before its product, off the CPU, and where no library can be built.
    """
    dtype, _ = x.dtype, kind_of(x)
    with torch.autocast("cpu", enabled=False):
        given = inputs(cell, x, weight, recurrent, bias, peephole, candidate_bias, state)
        if cell not in NUMBERS or given.peephole is not None:
            raise NotCovered("No compiled cell has peepholes or resets before its product; use provider chunked.")
        if not x.shape[0] or not x.shape[1]:
            return x.new_zeros(*x.shape[:2], given.state.shape[2]), given.state
        text = given.x
        if given.weight is not None:
            text = F.linear(text, given.weight, given.bias)
        elif given.bias is not None:
            text = text + given.bias
        heads, gates, units = len(given.recurrent), len(CELLS[cell].gates), given.recurrent.shape[2]
        batch, width = len(x), heads * units
        expect(x=(text, (*x.shape[:2], gates * width)), recurrent=(given.recurrent, (heads, gates * units, units)))
        expect(
            state=(given.state, (batch, len(CELLS[cell].states), width)),
            candidate_bias=(given.candidate_bias, (width,)),
        )
        own = (text, given.recurrent, given.candidate_bias, given.state)
        if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in own):
            y, last = _Cell.apply(*own, cell)
        else:
            y, last, _ = _forward(*own, cell, train=False)
    return y.to(dtype), last


def is_slower(x: Tensor, weight: Tensor | None, recurrent: Tensor, *, cell: str, **others: Tensor | None) -> bool:
    """Whether torch's own form, which `chunked` hands the cell over to, is the faster (`fused`)."""
    given = inputs(
        cell, x, weight, recurrent, *(others.get(n) for n in ("bias", "peephole", "candidate_bias", "state"))
    )
    return fused.covers(cell, given)


def _built(recurrent: Tensor, cell: str) -> tuple[Library, int]:
    """The library, and how many columns its panels have."""
    units = recurrent.shape[2]
    together = lanes(units, recurrent.dtype)
    side = 2 if units % (2 * together) == 0 else 1
    return library(SOURCE, recurrent.dtype, K=units, LANES=together, SIDE=side, CELL=NUMBERS[cell]), side * together


def _panels(matrix: Tensor, columns: int) -> Tensor:
    """[h, in, out] -> [h, out / columns, in, columns], one after another in memory."""
    return matrix.unflatten(2, (-1, columns)).transpose(1, 2).contiguous()


def _forward(x, recurrent, inner, state, cell: str, train: bool) -> tuple[Tensor, Tensor, tuple]:
    """y [b, t, d], the last state, and what the backward pass needs."""
    built, columns = _built(recurrent, cell)
    x, first = x.contiguous(), state.contiguous()
    inner = None if inner is None else inner.contiguous()
    last, heads = first.clone(), len(recurrent)
    y = x.new_empty(*x.shape[:2], first.shape[2])
    gates = torch.empty_like(x) if train else None
    kept = x.new_empty(*x.shape[:2], KEPT.get(cell, 1), first.shape[2]) if train else None
    rows = only_read(_panels(recurrent.mT, columns))
    built.forward(
        ctypes.byref(_Text(*x.shape[:2], heads, pointer(inner))), pointer(x), pointer(rows), pointer(last), pointer(y),
        pointer(gates), pointer(kept), torch.get_num_threads(),
    )  # fmt: skip
    return y, last, (recurrent, first, y, gates, kept)


class _Cell(torch.autograd.Function):
    """`apply(x, recurrent, candidate bias, state, cell)` -> y and the last state; the sLSTM's running maximum has no gradient."""

    @staticmethod
    def forward(ctx: Any, x, recurrent, inner, state, cell: str):
        y, last, kept = _forward(x, recurrent, inner, state, cell, train=True)
        ctx.save_for_backward(*kept)
        ctx.cell, ctx.biased = cell, inner is not None
        return y, last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        recurrent, first, y, gates, kept = ctx.saved_tensors
        built, columns = _built(recurrent, ctx.cell)
        dstate, dx, dy = dlast.clone(memory_format=torch.contiguous_format), torch.empty_like(gates), dy.contiguous()
        heads, text = len(recurrent), _Text(*y.shape[:2], len(recurrent), 0)
        past = (_panels(recurrent, columns), first, y, gates, kept, dy)
        built.backward(
            ctypes.byref(text), ctypes.byref(_Past(*(pointer(one) for one in past))), pointer(dstate), pointer(dx),
            torch.get_num_threads(),
        )  # fmt: skip
        if ctx.cell == "slstm":
            dstate[:, 3] = 0
        slopes = dx.unflatten(2, (len(CELLS[ctx.cell].gates), heads, -1))
        if ctx.cell == "gru":  # behind the reset gate
            slopes = slopes.clone()
            slopes[:, :, 2] *= gates.view(slopes.shape)[:, :, 0]
        dinner = slopes[:, :, 2].sum((0, 1)).flatten() if ctx.biased else None
        heard = torch.cat([first[:, :1], y[:, :-1]], 1).unflatten(2, (heads, -1))
        slopes, heard = slopes.permute(3, 0, 1, 2, 4).flatten(3).flatten(1, 2), heard.permute(2, 0, 1, 3).flatten(1, 2)
        return dx, slopes.mT @ heard, dinner, dstate, None
