"""Many prepared calls in one: Python comes back when the last of them is done. The C lies in `walk.c`.

A call of a compiled function by ctypes takes a microsecond or two of Python, whatever the function does. A call that is made with
the same memory each time can be prepared: its arguments laid out as C takes them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.ops.native_build import compiled, remembered
from models.ops.providers import NotCovered

SOURCE = Path(__file__).with_name("walk.c")
WHOLE, REAL = 16, 2  # arguments of a call at most: whole numbers with pointers, and doubles
PROBE = "idplilipdiil"  # the types of what `probe` is given
_ZERO, _NOTHING = ctypes.c_long(0), ctypes.c_double(0)


class Prepared(NamedTuple):
    """A call as C makes it: the function's address, and its arguments in memory, which is read at each call."""

    function: int
    whole: tuple[ctypes.c_long, ...]
    real: tuple[ctypes.c_double, ...]
    held: Any  # what owns the memory that the arguments name


class _Call(ctypes.Structure):
    _fields_ = [("run", ctypes.c_void_p), ("whole", ctypes.c_void_p * WHOLE), ("real", ctypes.c_void_p * REAL)]


def prepared(run: Any, given: Sequence[Any], held: Any = None) -> Prepared | None:
    """The call `run(*given)` of a function of ctypes; None where `walk` cannot make it, and Python has to.

    An argument with a number of its own in memory (`_as_parameter_`, a c_long) is read there at each call. `held` is kept for as
    long as the call is.
    """
    return _laid_out(run, given, held) if _walker() is not None else None


def walk(calls: Sequence[Prepared]) -> Callable[[], None]:
    """What makes these calls one after another, and keeps them."""
    return partial(_walker(), _entries(calls), len(calls))


def _laid_out(run: Any, given: Sequence[Any], held: Any = None) -> Prepared | None:
    types = getattr(run, "argtypes", None) or [None] * len(given)
    numbers = [_number(one, kind) for one, kind in zip(given, types, strict=True)]
    whole = tuple([one for one in numbers if type(one) is ctypes.c_long])
    real = tuple([one for one in numbers if type(one) is ctypes.c_double])
    if len(whole) > WHOLE or len(real) > REAL or len(whole) + len(real) < len(numbers):
        return None
    return Prepared(ctypes.cast(run, ctypes.c_void_p).value, whole, real, (given, held))


def _number(one: Any, kind: Any) -> ctypes.c_long | ctypes.c_double | None:
    """An argument as a number in memory, converted as ctypes converts it; None where it is of another kind."""
    one = getattr(one, "_as_parameter_", one)
    if kind is ctypes.c_double:
        return ctypes.c_double(one) if type(one) in (int, float) else None
    if kind not in (None, ctypes.c_int, ctypes.c_long, ctypes.c_void_p):
        return None
    if one is None:
        return ctypes.c_long(0)
    if type(one) is int:
        return ctypes.c_long(one if kind in (ctypes.c_long, ctypes.c_void_p) else ctypes.c_int(one).value)
    if isinstance(one, ctypes.c_void_p | ctypes.c_int):
        return ctypes.c_long(one.value or 0)
    if isinstance(one, ctypes.Array):
        return ctypes.c_long(ctypes.addressof(one))
    if type(one) is type(ctypes.byref(_ZERO)):
        return ctypes.c_long(ctypes.addressof(one._obj))
    return one if type(one) in (ctypes.c_long, ctypes.c_double) else None


def _entries(calls: Sequence[Prepared]) -> ctypes.Array:
    entries = (_Call * len(calls))()
    for entry, call in zip(entries, calls, strict=True):
        entry.run = call.function
        entry.whole[:] = _places(call.whole, _ZERO, WHOLE)
        entry.real[:] = _places(call.real, _NOTHING, REAL)
    entries.calls = calls  # an entry names its arguments by their addresses
    return entries


def _places(numbers: Sequence[Any], nothing: Any, count: int) -> list[int]:
    return [*map(ctypes.addressof, numbers), *[ctypes.addressof(nothing)] * (count - len(numbers))]


@remembered
def _walker() -> Any:
    """The compiled function that makes calls; None where there is none, or where arguments do not arrive as it hands them on."""
    try:
        run, probe, said = (
            compiled(SOURCE, torch.float32, name, types).run
            for name, types in {"walk": "pl", "probe": PROBE, "said": "p"}.items()
        )
    except NotCovered:
        return None
    given, heard = [(-1) ** place * (5 * place + 1) for place in range(len(PROBE))], []
    given = [abs(one) << 33 if kind == "p" else one for one, kind in zip(given, PROBE, strict=True)]  # as an address is
    for call in (partial(probe, *given), partial(run, _entries([_laid_out(probe, given)]), 1)):
        call()
        said(ctypes.byref(answer := ctypes.c_double()))
        heard.append(answer.value)
    return run if heard[0] == heard[1] else None
