"""Titans' memory compiled, for one token after others and without a gradient: the step of decoding. `step` in `native.c`.

The state stands at the last anchor and holds the tokens since. They are passed again, which for the 16 of an ordinary chunk
takes less time than the operators that would bring all into one text; the anchor's weights are handed on as they are.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.ops.native_build import compiled, expect, lanes, remembered
from models.ops.neural_memory.recurrence import Rule, State

SOURCE = Path(__file__).with_name("native.c")
KINDS = (torch.float32, torch.float64)
LARGEST = 1 << 14  # numbers of a head's weights that a step keeps on its stack


class Text(ctypes.Structure):
    """Tokens as C reads them."""

    _fields_ = [(name, ctypes.c_long) for name in ("batch", "time", "heads", "chunk", "last")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "k", "v", "momentum", "rate", "keep")]


class _Tokens(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("k", "v", "momentum", "rate", "keep")]


def built_for(
    keys: int, hidden: int, values: int, depth: int, gates: int, rule: Rule, kind: torch.dtype
) -> dict[str, int]:
    """The macros of `native.c`."""
    widths = {"K": keys, "H": hidden, "V": values, "LANES": lanes(math.gcd(hidden, values), kind)}
    law = {"SILU": rule.activation == "silu", "DECAYED": rule.decayed, "EXCLUSIVE": rule.exclusive}
    return widths | law | {"DEPTH": depth, "GATES": gates}


def step(q: Tensor, new: Sequence[Tensor], gates: int, rule: Rule, state: State | None) -> tuple[Tensor, State] | None:
    """y [b, 1, h, v] and the state after one token, whose `new` are k, v, momentum, rate and keep; None where not covered.

    Covered is a text of one token after others, in the dtype of its state, with `gates` numbers a head in each gate.
    """
    if state is None or torch.is_grad_enabled() or q.shape[1] != 1 or q.dtype not in KINDS:
        return None
    weights, surprise, opened = state
    if not all(x.dtype is q.dtype for x in (*new, *weights, *surprise, *opened)):
        return None
    if sum(weight[0, 0].numel() for weight in weights) > LARGEST or any(x[0, 0, 0].numel() != gates for x in new[2:]):
        return None
    batch, _, heads, keys = q.shape
    past, widths = opened[0].shape[1], (keys, *(weight.shape[3] for weight in weights))
    # A text's first weights are a learned row expanded. What C reads is held by a name until it has been read.
    given, opened, anchor = _flat((q, *new)), _flat(opened), (_flat(weights), _flat(surprise))
    _expect(given, opened, weights, surprise, (batch, heads, gates), widths)
    run = _step(keys, widths[1], widths[-1], len(weights), gates, rule, q.dtype)
    y, full = torch.empty_like(given[2]), past + 1 == rule.chunk
    ends = (
        [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (*weights, *surprise)]
        if full
        else []
    )
    after = tuple(x.new_empty(batch, 0 if full else past + 1, *x.shape[2:]) for x in new)
    sizes = batch, heads, rule.chunk, 0
    run(
        ctypes.byref(Text(sizes[0], 1, *sizes[1:], *(x.data_ptr() for x in given))),
        ctypes.byref(Text(sizes[0], past, *sizes[1:], None, *(x.data_ptr() for x in opened))),
        _addresses(anchor[0]),
        _addresses(anchor[1]),
        _addresses(ends) if full else None,
        ctypes.byref(_Tokens(*(x.data_ptr() for x in after))),
        y.data_ptr(),
        torch.get_num_threads(),
    )
    if full:
        weights, surprise = tuple(ends[: len(weights)]), tuple(ends[len(weights) :])
    return y, (weights, surprise, after)


def _expect(given, opened, weights, surprise, of, widths) -> None:
    """Raise ValueError unless all are shaped as C reads them."""
    batch, heads, gates = of
    rows = [*widths[:1], widths[-1], gates, gates, gates]
    expect(q=(given[0], (batch, 1, heads, widths[0])))
    for name, x, old, row in zip(("k", "v", "momentum", "rate", "keep"), given[1:], opened, rows, strict=True):
        own = (heads, row) if x.dim() == 4 else (heads,)
        expect(**{name: (x, (batch, 1, *own)), f"open {name}": (old, (batch, opened[0].shape[1], *own))})
    for layer, pair in enumerate(zip(weights, surprise, strict=True)):
        shape = (batch, heads, *widths[layer : layer + 2])
        expect(**{f"weights {layer}": (pair[0], shape), f"surprise {layer}": (pair[1], shape)})


@remembered
def _step(keys: int, hidden: int, values: int, depth: int, gates: int, rule: Rule, kind: torch.dtype):
    return compiled(SOURCE, kind, "step", "pppppppi", **built_for(keys, hidden, values, depth, gates, rule, kind))


def _flat(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in tensors)


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
