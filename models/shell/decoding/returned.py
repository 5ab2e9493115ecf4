"""What a step returns: a tree whose tensors are new at each token, or handed on as they were given."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.ops.prepared_calls.operators import copy
from models.shell.decoding.calls import Call, storage_of
from models.shell.decoding.moving import Moving
from models.shell.decoding.place import Place


class _Passed(int):
    """The place among the inputs of a tensor that is handed on as it is given."""


class _Made:
    """A tensor into whose memory a prepared call has written."""


class Returned:
    """The tree that a step returns. `made()` before its calls, of which `calls` are the last; `tree(made, given)` after them."""

    def __init__(self, found: Any, kept: Mapping[int, Tensor]):
        """`found` is what the layers returned; `kept` are the inputs, by their places, that were left as they are.

        A cache that was written into is handed out like a result.
        """
        self.copied = 0  # bytes at each token
        self._own: list[Tensor] = []  # the record's own memory, of which something is handed out
        self.calls: list[Call] = []
        self._sources: list[Tensor] = []  # of it, what prepared calls write or copy
        self._tree = self._marked(found, kept)
        self._places = (ctypes.c_long * len(self._sources))()  # where lies what is handed out

    def storages(self) -> list[int]:
        """The memory of what is handed out, as often as a part of it is."""
        return [*map(storage_of, self._own)]

    def written(self, moving: Moving) -> None:
        """Let the calls of a step write where it is handed out what they can, and copy the rest."""
        for index, source in enumerate(self._sources):
            to = ctypes.c_long.from_buffer(self._places, index * ctypes.sizeof(ctypes.c_long))
            if not moving.follow(source, to):
                [call] = copy(torch.empty_like(source), source).calls
                call = call._replace(whole=(to, *call.whole[1:]))
                self.copied += source.nbytes
                self.calls.append(Call(None, (), frozenset(), frozenset(), False, [call]))

    def made(self) -> list[Tensor]:
        """New tensors, where the next calls write."""
        return self.put([*map(torch.empty_like, self._sources)])

    def put(self, made: list[Tensor]) -> list[Tensor]:
        """Let the next calls write into these tensors, which are returned."""
        self._places[:] = [*map(Tensor.data_ptr, made)]
        return made

    def tree(self, made: Sequence[Tensor], given: Sequence[Tensor]) -> Any:
        """What is returned of a step: the new tensors, and what passed through as it came."""
        return _filled(self._tree, iter(made), given)

    def _marked(self, found: Any, kept: Mapping[int, Tensor]) -> Any:
        if type(found) is tuple:
            return tuple([self._marked(part, kept) for part in found])
        if not isinstance(found, Tensor):
            return found
        for place, mine in kept.items():
            if _is_same(mine, found):
                return _Passed(place)
        self._own.append(found)
        if copy(torch.empty_like(found), found) is None:  # copied in Python
            return found
        self._sources.append(found)
        return _Made


def _filled(tree: Any, made: Iterator[Tensor], given: Sequence[Tensor]) -> Any:
    kind = type(tree)
    if kind is tuple:
        return tuple([_filled(part, made, given) for part in tree])
    if tree is _Made:
        return next(made)
    if kind is Place:
        return tree.number
    if kind is _Passed:
        return given[tree]
    return tree.clone() if isinstance(tree, Tensor) else tree


def _is_same(one: Tensor, other: Tensor) -> bool:
    return (
        storage_of(one) == storage_of(other)
        and one.data_ptr() == other.data_ptr()
        and one.dtype is other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
    )
