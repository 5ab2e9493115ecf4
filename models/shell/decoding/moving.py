"""Memory of a record that lies elsewhere at each token: states are read where they are given, written where they are handed out.

Only prepared calls can find another address among their arguments. What an operator of PyTorch touches stays where it was when
the step was written down, and is copied there or from there.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from models.ops.prepared_calls.moves import Move, addresses, moved
from models.shell.decoding.calls import Call, storage_of


class Moving:
    """The calls of a record, which can be told where a tensor lies: `follow(tensor, base)`."""

    def __init__(self, calls: Sequence[Call], needed: Sequence[Call], ends: Sequence[int]):
        """`calls` are all of a step, `needed` those that are made again; `ends` is all memory from outside or handed out.

        What is among it twice stays where it is: a part of a state that is handed on, a weight.
        """
        again = {id(call) for call in needed if call.prepared and call.refused is None}
        apart = [call for call in calls if id(call) not in again]
        self._fixed = {storage for call in apart for storage in call.reads | call.writes}
        self._fixed |= {storage for storage, count in Counter(ends).items() if count > 1}
        together = [one for call in needed for one in call.prepared]
        self._addresses = [found for one in together for found in addresses(one)]
        self._moves: list[Move] = []

    def follow(self, tensor: Tensor, base: ctypes.c_long) -> bool:
        """From now on the calls find at `base` where the tensor lies, read at each token; False where one of them cannot."""
        first, length = tensor.data_ptr(), tensor.untyped_storage().nbytes()
        if storage_of(tensor) in self._fixed or length != tensor.nbytes:
            return False
        found = [(place, at - first) for place, at in self._addresses if first <= at < first + length]
        self._moves += [Move(place, base, more) for place, more in found]
        return bool(found)

    def ahead_of(self, needed: Sequence[Call]) -> list[Call]:
        """The calls with the one that puts the addresses in, beside the first that is prepared: both are then made in one."""
        if not self._moves:
            return list(needed)
        first = next(place for place, call in enumerate(needed) if call.prepared)
        put = Call(None, (), frozenset(), frozenset(), False, [moved(self._moves)])
        return [*needed[:first], put, *needed[first:]]


class Inputs:
    """A record's tokens and state: `put(tensors)` before its calls, which read them where they are given or from a copy."""

    def __init__(self, own: Sequence[Tensor], unchanged: Sequence[int], moving: Moving):
        """`own` are the record's tensors; those at `unchanged` its calls leave as they are."""
        self._bases = [ctypes.c_long() for _ in unchanged]
        followed = [moving.follow(own[place], base) for place, base in zip(unchanged, self._bases, strict=True)]
        self._bases = [base for base, follows in zip(self._bases, followed, strict=True) if follows]
        self._read = [place for place, follows in zip(unchanged, followed, strict=True) if follows]
        self._copied = [place for place in range(len(own)) if place not in self._read]
        self._own, self._layout = own, [own[place].stride() for place in self._read]
        self._to = [own[place] for place in self._copied]
        self.copied = sum(one.nbytes for one in self._to)  # bytes at each token

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Let the calls read these tensors."""
        _copy(self._to, [tensors[place] for place in self._copied])
        read = [tensors[place] for place in self._read]
        if [one.stride() for one in read] != self._layout:  # the calls read memory in one order
            own = [self._own[place] for place in self._read]
            _copy(own, read)
            read = own
        for base, one in zip(self._bases, read, strict=True):
            base.value = one.data_ptr()


def _copy(to: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, given)
