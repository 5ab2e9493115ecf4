"""Addresses among the arguments of prepared calls: found wherever they lie, and put in anew before the calls."""

from __future__ import annotations

import ctypes

import pytest
import torch

from models.ops import native_build
from models.ops.dense import native as dense
from models.ops.native_build import compiled
from models.ops.prepared_calls import walk as walking
from models.ops.prepared_calls.moves import Move, addresses, moved
from models.ops.prepared_calls.walk import prepared, walk

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="calls are made by compiled code")
HIGH = 1 << 40


class Inner(ctypes.Structure):
    _fields_ = [("count", ctypes.c_long), ("at", ctypes.c_void_p)]


class Outer(ctypes.Structure):
    _fields_ = [("some", ctypes.c_void_p * 2), ("scale", ctypes.c_double), ("inner", Inner)]


def test_addresses_are_found_as_arguments_in_structures_and_in_arrays():
    given = Outer((HIGH + 1, None), 0.5, Inner(HIGH, HIGH + 2))  # a count is no address, however large
    array = (ctypes.c_void_p * 2)(HIGH + 3, HIGH + 4)
    run = compiled(walking.SOURCE, torch.float32, "probe", "ppl").run
    call = prepared(run, (ctypes.byref(given), array, HIGH + 5))  # its arguments lie in its memory
    found = dict(addresses(call))
    places = {address - HIGH: place for place, address in found.items() if HIGH <= address <= HIGH + 5}
    assert sorted(places) == [1, 2, 3, 4, 5]
    base = ctypes.c_long(HIGH + 64)
    walk([moved([Move(place, base, more) for more, place in places.items()])])()
    assert [given.some[0], given.inner.at, *array] == [HIGH + 64 + n for n in (1, 2, 3, 4)]
    assert given.inner.count == HIGH


def test_a_call_computes_on_what_lies_where_its_arguments_are_put():
    run, weight = dense._functions(torch.float32)["linear"].run, torch.randn(8, 8)
    x, y = torch.randn(2, 1, 1, 8), torch.zeros(2, 1, 1, 8)
    call = prepared(run, (x[0].data_ptr(), weight.data_ptr(), None, y[0].data_ptr(), 1, 8, 8, 1))
    bases = {x[0].data_ptr(): ctypes.c_long(x[1].data_ptr()), y[0].data_ptr(): ctypes.c_long(y[1].data_ptr())}
    moves = [Move(place, bases[address], 0) for place, address in addresses(call) if address in bases]
    walk([moved(moves), call])()
    assert not y[0].any() and torch.allclose(y[1], x[1] @ weight.T, atol=1e-5)
