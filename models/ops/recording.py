"""Whoever wants to know what a piece of code calls beside PyTorch's operators: the compiled functions, and what these read.

It lies here so that neither compiled functions nor models have to know who listens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor


class Listener(Protocol):
    """What hears of compiled calls."""

    def called(self, run: Callable, given: tuple) -> None:
        """A compiled function has been called with these inputs."""

    def kept(self, found: Any) -> None:
        """Tensors that somebody keeps between calls have been used."""

    def only_read(self, tensor: Tensor) -> None:
        """No compiled function writes into this tensor's memory."""


_listening: list[Listener] = []


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is told of what is called."""
    _listening.append(listener)
    try:
        yield
    finally:
        _listening[:] = [one for one in _listening if one is not listener]


def kept(found: Any) -> Any:
    """`found`, of which whoever listens is told."""
    for listener in _listening:
        listener.kept(found)
    return found


def only_read(tensor: Tensor) -> Tensor:
    """`tensor`, of which whoever listens is told that compiled functions read it and do not write into it.

    Said of weights laid out anew: whoever makes the calls again may leave out what the weights alone decide.
    """
    for listener in _listening:
        listener.only_read(tensor)
    return tensor


class Compiled:
    """A compiled function, called as it is; whoever listens is told."""

    __slots__ = ("run",)

    def __init__(self, run: Callable):
        self.run = run

    def __call__(self, *given: Any) -> Any:
        found = self.run(*given)
        if _listening:
            for listener in _listening:
                listener.called(self.run, given)
        return found

    def returns(self, kind: Any) -> None:
        """Say the type of what it returns, a number that hangs on its numbers alone."""
        self.run.restype = kind


class Library:
    """The functions of a compiled library by their names, each as `Compiled`."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library

    def __getattr__(self, name: str) -> Compiled:
        function = Compiled(getattr(self._library, name))
        setattr(self, name, function)
        return function
