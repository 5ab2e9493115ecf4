"""What a step calls: every operator of PyTorch and every compiled function, in order, with the memory that they touch.

Calls that C can make are prepared (`models.ops.prepared_calls`): neighbours among them are then made in one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.ops.prepared_calls.operators import Operator, operator
from models.ops.prepared_calls.walk import Prepared, prepared, walk

FRESH = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")  # memory whose numbers nobody reads
# Operators that lie in `torch` under their own name and signature, where they are called in half the time.
QUICK = frozenset("add sub mul div neg exp log sigmoid tanh sqrt rsqrt reciprocal square cat mm bmm addmm".split())
QUICK_FUNCTIONS = frozenset("softplus silu gelu glu".split())  # those that lie in `torch._C._nn`
READ_OUT = ("tolist", "numpy", "__array__")  # methods that hand numbers to Python without an operator


class Call(NamedTuple):
    """One call: how it is made again, and the memory that it reads and writes."""

    again: Callable[..., Any]
    arguments: tuple
    reads: frozenset[int]
    writes: frozenset[int]
    is_constant: bool  # gives the same for the same inputs and changes none of them
    prepared: Sequence[Prepared] = ()  # the same call as C makes it; empty where Python has to
    refused: ctypes.c_long | None = None  # not zero after C was to do what the operator refuses with an error


class Listener(TorchDispatchMode):
    """Hears every operator and every compiled call; `missing` says what could not be written down, "" if nothing."""

    def __init__(self, known: Sequence[Tensor]):
        super().__init__()
        self.calls: list[Call] = []
        self.held: list[Any] = []
        self.outside: list[int] = []  # memory that was there before the step
        self.written: set[int] = set()  # memory that operators of PyTorch change where it lies, as far as they say so
        self.missing = ""
        self._only_read: set[int] = set()  # memory that compiled functions leave as it is
        self._places: dict[int, tuple[int, int]] = {}  # of a storage: where it begins and ends
        for tensor in known:
            self._come(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        for tensor in given:
            self._come(tensor)
        for tensor in made:
            self._hold(tensor)
        reads = frozenset(storage_of(tensor) for tensor in given)
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if written:
            self.written |= reads
            self.calls.append(Call(partial(func, *args, **kwargs), (), reads, reads, False))
        elif not made:
            self.missing = self.missing or (f"{func} tells Python of numbers." if given else "")
        elif not all(storage_of(tensor) in reads for tensor in made):  # a view has nothing to do again
            if func.overloadpacket.__name__ not in FRESH:
                writes = frozenset(storage_of(tensor) for tensor in made)
                is_constant = torch.Tag.nondeterministic_seeded not in func.tags
                calls, refused = self._prepared(func, args, kwargs, found)
                again = _again(func, args, kwargs, found)
                self.calls.append(Call(again, (), reads, writes, is_constant, calls, refused))
        return found

    @staticmethod
    def _prepared(func: Any, args: tuple, kwargs: dict, found: Any) -> Operator:
        made = operator(func, args, found, **kwargs) if isinstance(found, Tensor) else None
        return Operator([]) if made is None else made

    def called(self, run: Callable, given: tuple) -> None:
        types = getattr(run, "argtypes", None) or [None] * len(given)
        touched = {
            self._place(address) for kind, one in zip(types, given, strict=True) for address in _addresses(one, kind)
        }
        self.held.append(given)
        made = prepared(run, given)
        calls, written = () if made is None else (made,), frozenset(touched - self._only_read)
        self.calls.append(Call(run, given, frozenset(touched), written, False, calls))

    def kept(self, found: Any) -> None:
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._come(leaf)

    def only_read(self, tensor: Tensor) -> None:
        self._hold(tensor)
        self._only_read.add(storage_of(tensor))

    def _place(self, address: int) -> int:
        """The storage in which an address lies."""
        for storage, (first, last) in self._places.items():
            if first <= address < last:
                return storage
        self.missing = self.missing or "A compiled function reads memory that nobody is known to hold."
        return 0

    def _come(self, tensor: Tensor) -> None:
        """A tensor that is used, of this step or from outside."""
        if storage_of(tensor) not in self._places:
            self.outside.append(storage_of(tensor))
        self._hold(tensor)

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        first = storage.data_ptr()
        self._places[storage._cdata] = first, first + storage.nbytes()
        self.held.append(storage)


class ReadOut(TorchFunctionMode):
    """Tells the listener of numbers that a layer reads out, upon which it may decide."""

    def __init__(self, listener: Listener):
        super().__init__()
        self._listener = listener

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") in READ_OUT:
            self._listener.missing = self._listener.missing or f"{func.__name__} tells Python of numbers."
        return func(*args, **(kwargs or {}))


def joined(calls: Sequence[Call]) -> list[tuple[Callable, tuple]]:
    """The calls as functions with their arguments, neighbours that are prepared as one."""
    found: list[tuple[Callable, tuple]] = []
    for is_prepared, group in groupby(calls, key=lambda call: bool(call.prepared)):
        together = list(group)
        if not is_prepared:
            found += [(call.again, call.arguments) for call in together]
            continue
        found.append((walk([one for call in together for one in call.prepared]), ()))
        found += [(partial(_answer, call), ()) for call in together if call.refused is not None]
    return found


def _answer(call: Call) -> None:
    """Let the operator say what is wrong with what C could not do for it."""
    if call.refused.value:
        call.refused.value = 0
        call.again(*call.arguments)


def _again(func: Any, args: tuple, kwargs: dict, found: Any) -> Callable[[], Any]:
    """What puts the operator's result into the memory where it lay: its own form with `out`, where it has one."""
    if isinstance(found, Tensor):
        if func is torch.ops.aten._to_copy.default:
            return partial(found.copy_, args[0])
        for name in func.overloadpacket.overloads():
            other = getattr(func.overloadpacket, name)
            outs = [one.name for one in other._schema.arguments if one.is_out]
            if outs == ["out"] and _inputs(other) == _inputs(func):
                return partial(_quick(other), *args, **kwargs, out=found)

    run, places = func._op, [(place, old) for place, old in enumerate(tree_leaves(found)) if isinstance(old, Tensor)]
    leaves_of = (lambda new: [new]) if isinstance(found, Tensor) else tuple if _is_flat(found) else tree_leaves

    def again() -> None:
        new = leaves_of(run(*args, **kwargs))
        for place, old in places:
            old.copy_(new[place])

    return again


def _is_flat(found: Any) -> bool:
    """Whether its parts are its leaves."""
    return type(found) in (tuple, list) and all(isinstance(one, Tensor) for one in found)


def _quick(func: Any) -> Callable:
    """The same operator by the way into PyTorch that takes the least time."""
    name = func.overloadpacket.__name__
    if name in QUICK_FUNCTIONS:
        return getattr(torch._C._nn, name)
    return getattr(torch, name) if name in QUICK else func._op


def _inputs(func: Any) -> list[tuple[str, str]]:
    return [(one.name, str(one.type)) for one in func._schema.arguments if not one.is_out]


def _addresses(given: Any, kind: Any) -> Iterator[int]:
    """The addresses in what C is given: a pointer, or a structure or an array of them, as it is or by reference."""
    given = getattr(given, "_obj", given)
    if isinstance(given, ctypes.Array):
        for one in given:
            yield from _addresses(one, given._type_)
    elif isinstance(given, ctypes.Structure):
        for name, of in given._fields_:
            yield from _addresses(getattr(given, name), of)
    elif isinstance(given, ctypes.c_void_p):
        yield from [given.value] if given.value else ()
    elif kind is ctypes.c_void_p and given:
        yield given


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
