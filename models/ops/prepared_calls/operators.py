"""Operators of PyTorch as prepared calls, where these give the same digits: arithmetic that IEEE 754 settles, and copies.

For a few numbers an operator takes some hundred times as long to begin as to compute. What rounds as its author liked it, as e^x,
a sum or a product of matrices does, stays PyTorch's. The C lies in `operators.c`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.native_build import compiled
from models.ops.prepared_calls.walk import Prepared, prepared
from models.ops.providers import NotCovered

SOURCE = Path(__file__).with_name("operators.c")
AXES = 4
ARITHMETIC = (torch.float32, torch.float64)
COPIED = {torch.float32: torch.float32, torch.float64: torch.float64, torch.int64: torch.float64}  # by equal bytes
aten = torch.ops.aten
PAIRS = {aten.add.Tensor: "add", aten.sub.Tensor: "subtract", aten.mul.Tensor: "multiply", aten.div.Tensor: "divide"}


class Operator(NamedTuple):
    """The prepared calls of an operator; `refused` is not zero after they found what the operator refuses with an error."""

    calls: list[Prepared]
    refused: ctypes.c_long | None = None


def operator(func: Any, args: Sequence[Any], found: Tensor, **named: Any) -> Operator | None:
    """What puts the result of `func(*args, **named)` into the memory of `found`; None where PyTorch has to.

    Of `named` a memory format alone is known, which is that of `found`.
    """
    if named.keys() - {"memory_format"} or not _is_plain(found):
        return None
    if func in PAIRS:
        return _pair(PAIRS[func], found, *args)
    form = OTHERS.get(func)
    return None if form is None else form(found, *args)


def copy(to: Tensor, source: Tensor) -> Operator | None:
    """`to.copy_(source)`; the addresses of both are read at each call: those of `calls[0].whole[:2]`."""
    return _each("copy", to, source) if to.dtype is source.dtype and to.dtype in COPIED else None


def _pair(name: str, found: Tensor, one: Any, other: Any) -> Operator | None:
    one, other = (_as_tensor(x, found.dtype) for x in (one, other))
    return None if one is None or other is None or found.dtype not in ARITHMETIC else _each(name, found, one, other)


def _reverse(found: Tensor, one: Any, other: Any, *alpha: Any) -> Operator | None:
    return None if alpha else _pair("subtract", found, other, one)


def _negative(found: Tensor, x: Tensor) -> Operator | None:
    return _each("negate", found, x) if found.dtype in ARITHMETIC else None


def _power(found: Tensor, x: Tensor, exponent: Any) -> Operator | None:
    return _pair("multiply", found, x, x) if exponent == 2 else None


def _joined(found: Tensor, parts: Sequence[Tensor], axis: int = 0) -> Operator | None:
    """Tensors side by side; PyTorch leaves out those of the shape (0,)."""
    parts = [part for part in parts if part.shape != (0,)]
    ends = [*accumulate([part.shape[axis] for part in parts])]
    places = zip(parts, ends, strict=True)
    return _together([copy(found.narrow(axis, end - part.shape[axis], part.shape[axis]), part) for part, end in places])


def _stacked(found: Tensor, parts: Sequence[Tensor], axis: int = 0) -> Operator | None:
    return _together([copy(found.select(axis, place), part) for place, part in enumerate(parts)])


def _padded(found: Tensor, x: Tensor, more: Sequence[int], value: Any = 0) -> Operator | None:
    """A frame of one number around a tensor: `more` says how wide, from the last axis on, before and behind."""
    number, inside = _as_tensor(value, found.dtype), found
    if number is None or min(more) < 0:
        return None
    for place, before in enumerate(more[::2], 1):
        inside = inside.narrow(-place, before, x.shape[-place])
    return _together([copy(found, number), copy(inside, x)])


def _rows(found: Tensor, table: Tensor, indices: Tensor, *_: Any) -> Operator | None:
    """Rows of a table; of a gradient, which the further arguments are about, there is none."""
    whole = all(x.is_contiguous() and _is_plain(x) for x in (found, table, indices))
    if not whole or table.dtype not in ARITHMETIC or indices.dtype is not torch.int64:
        return None
    outside = ctypes.c_long()
    given = (*(x.data_ptr() for x in (found, table, indices)), indices.numel(), table.shape[1], len(table))
    given = (*given, ctypes.addressof(outside))
    made = _call(found.dtype, "rows", "ppplllp", given, (found, table, indices, outside))
    return None if made is None else made._replace(refused=outside)


OTHERS: dict[Any, Callable[..., Operator | None]] = {
    aten.rsub.Scalar: _reverse,
    aten.neg.default: _negative,
    aten.pow.Tensor_Scalar: _power,
    aten.clone.default: copy,
    aten.cat.default: _joined,
    aten.stack.default: _stacked,
    aten.constant_pad_nd.default: _padded,
    aten.embedding.default: _rows,
}


def _each(name: str, to: Tensor, *sources: Tensor) -> Operator | None:
    """One number after another: `to[i] = f(a[i], b[i])`, sources spread over the axes that they lack."""
    if not all(map(_is_plain, (to, *sources))):
        return None
    a, b = sources[0].expand(to.shape), sources[-1].expand(to.shape)
    axes = merged([*zip(to.shape, to.stride(), a.stride(), b.stride(), strict=True)])
    if len(axes) > AXES:
        return None
    axes = [(1, 0, 0, 0)] * (AXES - len(axes)) + axes
    form = (ctypes.c_long * (4 * AXES))(*(number for part in zip(*axes, strict=True) for number in part))
    given = (to.data_ptr(), a.data_ptr(), b.data_ptr(), ctypes.addressof(form))
    return _call(COPIED[to.dtype], name, "pppp", given, (to, *sources, form))


def merged(axes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Axes (size, steps ...) in the order of memory, those as one along which every tensor goes on where it stands."""
    found: list[tuple[int, ...]] = []
    for size, *steps in sorted([axis for axis in axes if axis[0] != 1], key=lambda axis: -axis[1]):
        if found and found[-1][1:] == tuple([size * step for step in steps]):
            size *= found.pop()[0]
        found.append((size, *steps))
    return found


def _together(parts: Sequence[Operator | None]) -> Operator | None:
    return None if None in parts else Operator([call for part in parts for call in part.calls])


def _as_tensor(x: Any, dtype: torch.dtype) -> Tensor | None:
    """A number as a tensor without axes, rounded as PyTorch rounds it; None for a tensor of another dtype."""
    if type(x) in (int, float):
        return torch.tensor(x, dtype=dtype)
    return x if isinstance(x, Tensor) and x.dtype is dtype else None


def _is_plain(x: Tensor) -> bool:
    """Whether the numbers lie in memory as they are."""
    return type(x) in (Tensor, torch.nn.Parameter) and x.is_cpu and x.layout is torch.strided and not x.is_neg()


def _call(kind: torch.dtype, name: str, types: str, given: Sequence[Any], held: Sequence[Any]) -> Operator | None:
    try:
        made = prepared(compiled(SOURCE, kind, name, types).run, given, held)
    except NotCovered:
        return None
    return None if made is None else Operator([made])
