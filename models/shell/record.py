"""The record of one step: every operator of PyTorch and every compiled function that it called, in order, with their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from models.ops import providers, recording

FRESH = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")  # memory whose numbers nobody reads
# Operators that lie in `torch` under their own name and signature, where they are called in half the time.
QUICK = frozenset("add sub mul div neg exp log sigmoid tanh sqrt rsqrt reciprocal square cat".split())
READ_OUT = ("tolist", "numpy", "__array__")  # methods that hand numbers to Python without an operator
LARGEST = 1 << 22  # bytes of tokens and state, of which a record holds its own


class NotRecorded(RuntimeError):
    """A step does something that a list of calls cannot do again."""


class Call(NamedTuple):
    """One call: how it is made again, and the memory that it reads and writes."""

    again: Callable[..., Any]
    arguments: tuple
    reads: frozenset[int]
    writes: frozenset[int]
    is_constant: bool  # gives the same for the same inputs and changes none of them


class Record:
    """The calls of a step, on memory of their own: `record(tokens, leaves)` copies in, calls, and copies out."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], found: Any, listener: _Listener, names: set[str]):
        self.inputs, self.names = list(inputs), tuple(names)
        self.returned = _returned(found, self.inputs)
        self.calls = [(call.again, call.arguments) for call in _needed(listener.calls, inputs)]
        self._held = listener.held  # all memory that the calls name by its address
        self._hangs_on = _Surroundings(model)

    def holds(self) -> bool:
        """Whether the model is as it was when the step was written down."""
        return self._hangs_on.are_the_same()

    def __call__(self, tokens: Tensor, leaves: Sequence[Tensor]) -> Any:
        given = [tokens, *leaves]
        torch._foreach_copy_(self.inputs, given)
        for again, arguments in self.calls:
            again(*arguments)
        for name in self.names:
            providers.note(name)
        return _handed(self.returned, given)


def recorded(model: nn.Module, read: Callable, tokens: Tensor, state: Any) -> tuple[Record, Any]:
    """The record of `read(tokens, state)`, and what that returned. Raises NotRecorded where there can be none."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise NotRecorded("Changes of weights made in inference mode are not counted.")
    tokens, state = tokens.clone(), tree_map(lambda leaf: leaf.clone(memory_format=torch.contiguous_format), state)
    inputs = [tokens, *tree_leaves(state)]
    if sum(one.nbytes for one in inputs) > LARGEST:
        raise NotRecorded("A large state takes longer to copy than is spared, in as many records as it has shapes.")
    listener = _Listener([*inputs, *model.parameters(), *model.buffers()])
    with recording.heard_by(listener), providers.watch() as names, _ReadOut(listener), listener:
        found = read(tokens, state)
    if listener.missing:
        raise NotRecorded(listener.missing)
    if "native" not in names or not _is_plain(found):
        raise NotRecorded("Nothing compiled computes here, or the state is no longer made of tensors.")
    return Record(model, inputs, found, listener, names), _copied(found)


class _Listener(TorchDispatchMode):
    """Hears every operator and every compiled call; `missing` says what could not be written down, "" if nothing."""

    def __init__(self, known: Sequence[Tensor]):
        super().__init__()
        self.calls: list[Call] = []
        self.held: list[Any] = []
        self.missing = ""
        self._places: dict[int, tuple[int, int]] = {}  # of a storage: where it begins and ends
        for tensor in known:
            self._hold(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        for tensor in (*given, *made):
            self._hold(tensor)
        reads = frozenset(_storage(tensor) for tensor in given)
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if written:
            self.calls.append(Call(partial(func, *args, **kwargs), (), reads, reads, False))
        elif not made:
            self.missing = self.missing or (f"{func} tells Python of numbers." if given else "")
        elif not all(_storage(tensor) in reads for tensor in made):  # a view has nothing to do again
            if func.overloadpacket.__name__ not in FRESH:
                writes = frozenset(_storage(tensor) for tensor in made)
                is_constant = torch.Tag.nondeterministic_seeded not in func.tags
                self.calls.append(Call(_again(func, args, kwargs, found), (), reads, writes, is_constant))
        return found

    def called(self, run: Callable, given: tuple) -> None:
        types = getattr(run, "argtypes", None) or [None] * len(given)
        touched = {
            self._place(address) for kind, one in zip(types, given, strict=True) for address in _addresses(one, kind)
        }
        self.held.append(given)
        self.calls.append(Call(run, given, frozenset(touched), frozenset(touched), False))

    def kept(self, found: Any) -> None:
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._hold(leaf)

    def _place(self, address: int) -> int:
        """The storage in which an address lies."""
        for storage, (first, last) in self._places.items():
            if first <= address < last:
                return storage
        self.missing = self.missing or "A compiled function reads memory that nobody is known to hold."
        return 0

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        first = storage.data_ptr()
        self._places[storage._cdata] = first, first + storage.nbytes()
        self.held.append(storage)


class _ReadOut(TorchFunctionMode):
    """Tells the listener of numbers that a layer reads out, upon which it may decide."""

    def __init__(self, listener: _Listener):
        super().__init__()
        self._listener = listener

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") in READ_OUT:
            self._listener.missing = self._listener.missing or f"{func.__name__} tells Python of numbers."
        return func(*args, **(kwargs or {}))


class _Surroundings:
    """What a step hangs on beside tokens and state: the numbers of weights and buffers, and all that its modules hold.

    Looked at before every token, so all of a table is taken at once, and most is found the same by being the same object.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._own = [(itemgetter(*own, "training"), vars(m)) for m in modules if (own := _own_names(m))]
        tables = [table for m in modules for table in (m._parameters, m._buffers, m._modules)]
        self._full, self._sizes = [table for table in tables if table], [*map(vars, modules), *tables]
        self._listeners = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._tensors = [*model.parameters(), *model.buffers()]
        self._before, self._parts_before = self._now(), self._parts()

    def are_the_same(self) -> bool:
        try:
            return (
                self._now() == self._before
                and all(map(is_, self._parts(), self._parts_before))
                and not any(self._listeners)
                and not _has_any_global_hook()
            )
        except (KeyError, RuntimeError, TypeError, ValueError):  # gone, or arrays that are not the same object
            return False

    def _parts(self) -> list[Any]:
        """Weights, buffers and modules; as many as before where the tables' sizes are the same."""
        return [*chain.from_iterable(map(dict.values, self._full))]

    def _now(self) -> tuple[list, ...]:
        return (
            [get(table) for get, table in self._own],
            [*map(len, self._sizes)],
            [*map(Tensor.data_ptr, self._tensors)],
            [*map(_VERSION, self._tensors)],
        )


_INNER = frozenset(vars(nn.Module()))  # what every module holds
_VERSION = attrgetter("_version")


def _own_names(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name not in _INNER]


def _needed(calls: Sequence[Call], inputs: Sequence[Tensor]) -> list[Call]:
    """The calls without those whose results hang on weights alone and that nobody writes upon."""
    changing = {_storage(tensor) for tensor in inputs}
    for call in calls:
        if not call.is_constant:
            changing |= call.writes
    found = []
    for call in calls:
        if not call.is_constant or call.reads & changing or call.writes & changing:
            changing |= call.writes
            found.append(call)
    return found


def _again(func: Any, args: tuple, kwargs: dict, found: Any) -> Callable[[], Any]:
    """What puts the operator's result into the memory where it lay: its own form with `out`, where it has one."""
    if isinstance(found, Tensor):
        for name in func.overloadpacket.overloads():
            other = getattr(func.overloadpacket, name)
            outs = [one.name for one in other._schema.arguments if one.is_out]
            if outs == ["out"] and _inputs(other) == _inputs(func):
                return partial(_quick(other), *args, **kwargs, out=found)

    def again() -> None:
        new = func(*args, **kwargs)
        for old, one in zip(tree_leaves(found), tree_leaves(new), strict=True):
            if isinstance(old, Tensor):
                old.copy_(one)

    return again


def _quick(func: Any) -> Callable:
    """The same operator by the way into PyTorch that takes the least time."""
    name = func.overloadpacket.__name__
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


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_plain(found: Any) -> bool:
    return isinstance(found, Tensor) or (type(found) is tuple and all(_is_plain(part) for part in found))


def _copied(found: Any) -> Any:
    return found.clone() if isinstance(found, Tensor) else tuple([_copied(part) for part in found])


def _returned(found: Any, inputs: Sequence[Tensor]) -> Any:
    """`found` with the place of an input where it is that input, which is handed on as it is given."""
    if isinstance(found, Tensor):
        return next((place for place, mine in enumerate(inputs) if _is_same(mine, found)), found)
    return tuple([_returned(part, inputs) for part in found])


def _is_same(one: Tensor, other: Tensor) -> bool:
    return (
        _storage(one) == _storage(other)
        and one.data_ptr() == other.data_ptr()
        and one.dtype is other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
    )


def _handed(returned: Any, given: Sequence[Tensor]) -> Any:
    """What is returned of a step: copies of the record's own memory, and what passed through as it came."""
    if type(returned) is tuple:
        return tuple([_handed(part, given) for part in returned])
    return given[returned] if type(returned) is int else returned.clone()
