"""Numbers of a state that count tokens, as a record of a step knows them: compiled code is handed them, and they go on.

A place in the text turns queries and keys, and is one further at the next token. So long as the layers do no more with it, the
calls of a step are those of any other place. Whoever looks what the number is has asked for it: a record is then of that number.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NoReturn


class Asked(RuntimeError):
    """A layer does something with a place for which it has to know the number."""


class Places:
    """The numbers of a state, of which those in `known` are what they are, and the others places."""

    def __init__(self, numbers: Sequence[int], known: Sequence[int] = ()):
        self.asked: set[int] = set()  # the numbers that somebody wants to know
        self._all: list[Place] = []
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

    def __add__(self, more: Any) -> Place:
        if type(more) is not int:
            self._ask()
        return Place(self._places, self.index, self.number - self.further, self.further + more) if more else self

    __radd__ = __add__

    def __sub__(self, less: Any) -> Place:
        return self + -less

    def _ask(self, *_: Any) -> NoReturn:
        self._places.asked.add(self.index)
        raise Asked("A record does not know where in the text it stands.")

    # No `__index__`, which ctypes would try before `_as_parameter_`: a place that is an index raises TypeError.
    __bool__ = __float__ = __hash__ = __neg__ = __abs__ = __iter__ = __len__ = _ask
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _ask
    __mul__ = __rmul__ = __mod__ = __rmod__ = __divmod__ = __floordiv__ = __rfloordiv__ = __truediv__ = __rsub__ = (
        __pow__
    ) = _ask
