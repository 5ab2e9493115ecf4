"""Numbers of a state that count tokens, as a record of a step knows them.

A place in the text turns queries and keys or makes a mean of a sum, and is one further at the next token. So long as layers do
no more than hand it to compiled code, reckon with it in tensors and count on, the calls of a step are those of any other place.
Whoever looks what the number is has asked for it: a record is then of that number.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor


class Asked(RuntimeError):
    """A layer does something with a place for which it has to know the number."""


class Places:
    """The numbers of a state, of which those in `known` are what they are, and the others places."""

    def __init__(self, numbers: Sequence[int], known: Sequence[int] = ()):
        self.asked: set[int] = set()  # the numbers that somebody wants to know
        self.tensors = [
            torch.tensor(number, dtype=torch.float64) for number in numbers
        ]  # what tensors are reckoned with
        self._all: list[Place] = []
        self._factors: set[int] = set()  # the tensors that somebody uses
        self.first = [
            number if index in known else Place(self, index, number, 0) for index, number in enumerate(numbers)
        ]

    @property
    def unknown(self) -> list[int]:
        """Which of the numbers are places."""
        return [place.index for place in self.first if isinstance(place, Place)]

    def made(self, place: Place) -> None:
        self._all.append(place)

    def put(self, numbers: Sequence[int]) -> None:
        """Let all places, and those that lie further on, stand for these numbers."""
        for place in self._all:
            place._as_parameter_.value = numbers[place.index] + place.further
        for index in self._factors:
            self.tensors[index].fill_(numbers[index])

    def factor(self, place: Place) -> Tensor:
        """A place as a tensor without dimensions, which takes on the dtype of the tensor that it is reckoned with."""
        self._factors.add(place.index)
        tensor = self.tensors[place.index]
        return tensor + place.further if place.further else tensor


class Place:
    """The number at `index` of a state, `further` tokens on. ctypes takes it for an integer, whose value can be put later."""

    __slots__ = ("_as_parameter_", "_places", "further", "index")

    def __init__(self, places: Places, index: int, number: int, further: int):
        self._places, self.index, self.further = places, index, further
        self._as_parameter_ = ctypes.c_long(number + further)
        places.made(self)

    @property
    def number(self) -> int:
        return self._as_parameter_.value

    def __add__(self, more: Any) -> Any:
        if _is_floating(more):
            return self._places.factor(self) + more
        if type(more) is not int:
            self._ask()
        return Place(self._places, self.index, self.number - self.further, self.further + more) if more else self

    __radd__ = __add__

    def __sub__(self, less: Any) -> Any:
        return self + -less

    def __rmul__(self, other: Any) -> Tensor:
        return other * self._places.factor(self) if _is_floating(other) else self._ask()

    def __rtruediv__(self, other: Any) -> Tensor:
        return other / self._places.factor(self) if _is_floating(other) else self._ask()

    def __bool__(self) -> bool:
        """True of a count that has gone on: it is not zero, whatever it is."""
        return self.further > 0 or self._ask()

    def _ask(self, *_: Any) -> NoReturn:
        self._places.asked.add(self.index)
        raise Asked("A record does not know where in the text it stands.")

    # No `__index__`, which ctypes would try before `_as_parameter_`: a place that is an index raises TypeError.
    __float__ = __hash__ = __neg__ = __abs__ = __iter__ = __len__ = __pow__ = __rsub__ = _ask
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _ask
    __mul__ = __mod__ = __rmod__ = __divmod__ = __floordiv__ = __rfloordiv__ = __truediv__ = _ask


def _is_floating(one: Any) -> bool:
    """Whether it is a tensor whose dtype stays what it is when a number of another one joins it."""
    return isinstance(one, Tensor) and one.is_floating_point() and one.dim() > 0
