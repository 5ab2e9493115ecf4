"""Addresses in the arguments of prepared calls that are others at each token. The C lies in `walk.c`.

A prepared call reads its arguments where they lie, so it computes on another tensor once another address stands there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from models.ops.native_build import compiled
from models.ops.prepared_calls.walk import SOURCE, Prepared, prepared


class Move(NamedTuple):
    """An address that is to become `base`, read at each call, and `more` bytes."""

    place: int  # where the address lies
    base: ctypes.c_long
    more: int


class _Move(ctypes.Structure):
    _fields_ = [("to", ctypes.c_void_p), ("base", ctypes.c_void_p), ("more", ctypes.c_long)]


def moved(moves: Sequence[Move]) -> Prepared:
    """The call that puts the addresses in; it belongs before those that read them."""
    entries = (_Move * len(moves))(*((one.place, ctypes.addressof(one.base), one.more) for one in moves))
    move = compiled(SOURCE, torch.float32, "move", "pl").run
    return prepared(move, (ctypes.addressof(entries), len(moves)), (entries, moves))


def addresses(call: Prepared) -> Iterator[tuple[int, int]]:
    """Where each address in a call's arguments lies, with the address: in structures that it is given too.

    Numbers among them are taken for addresses, which are larger than any of these.
    """
    for number in call.whole:
        yield ctypes.addressof(number), number.value
    for one in call.held[0]:
        given = getattr(one, "_obj", one)  # what was handed on by reference
        if isinstance(given, ctypes.Structure | ctypes.Array):
            yield from _inside(given, ctypes.addressof(given))


def _inside(one: Any, place: int) -> Iterator[tuple[int, int]]:
    """The pointers in a structure or an array that lies at a place in memory."""
    if isinstance(one, ctypes.Array):
        step = ctypes.sizeof(one._type_)
        parts = [(step * index, one._type_, part) for index, part in enumerate(one)]
    else:
        parts = [(getattr(type(one), name).offset, kind, getattr(one, name)) for name, kind in one._fields_]
    for offset, kind, part in parts:
        if kind is ctypes.c_void_p:
            yield place + offset, part or 0
        elif issubclass(kind, ctypes.Structure | ctypes.Array):
            yield from _inside(part, place + offset)
