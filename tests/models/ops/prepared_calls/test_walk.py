"""Prepared calls: made as ctypes makes them, one after another, and refused where C cannot make them."""

from __future__ import annotations

import ctypes

import pytest
import torch

from models.ops import native_build
from models.ops.dense import native as dense
from models.ops.native_build import compiled, forget
from models.ops.prepared_calls import walk as walking
from models.ops.prepared_calls.walk import PROBE, WHOLE, prepared, walk

pytestmark = pytest.mark.skipif(not native_build.compiler(), reason="calls are made by compiled code")


def function(name, types):
    return compiled(walking.SOURCE, torch.float32, name, types).run


def heard():
    function("said", "p")(ctypes.byref(answer := ctypes.c_double()))
    return answer.value


GIVEN = [3, 0.5, ctypes.c_void_p(7), -(1 << 40), -5, ctypes.c_long(11), 13, None, -0.75, 17, -19, 1 << 50]


def test_arguments_of_every_kind_arrive_as_by_ctypes():
    probe = function("probe", PROBE)
    probe(*GIVEN)
    expected = heard()
    probe(*[0] * len(PROBE))
    assert heard() != expected
    walk([prepared(probe, GIVEN)])()
    assert heard() == expected


def test_an_argument_in_memory_is_read_at_each_call():
    class Moving:
        _as_parameter_ = ctypes.c_long(4)

    probe = function("probe", PROBE)
    again = walk([prepared(probe, [*GIVEN[:3], Moving(), *GIVEN[4:]])])
    for number in (4, 5):
        Moving._as_parameter_.value = number
        again()
        found = heard()
        probe(*GIVEN[:3], number, *GIVEN[4:])
        assert found == heard()


def test_calls_are_made_in_their_order():
    x, weight = torch.randn(1, 1, 8), torch.randn(8, 8)
    between, found = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    run = dense._functions(torch.float32)["linear"].run
    calls = [
        prepared(run, (one.data_ptr(), weight.data_ptr(), None, to.data_ptr(), 1, 8, 8, 1))
        for one, to in ((x, between), (between, found))
    ]
    walk(calls)()
    assert torch.equal(found, dense.linear(dense.linear(x, weight), weight))


class _Pair(ctypes.Structure):
    _fields_ = [("one", ctypes.c_long), ("other", ctypes.c_long)]


def test_what_c_cannot_be_handed_stays_with_python():
    run = ctypes.CDLL(None).memcpy  # a function without declared types, as libraries have them
    assert prepared(run, [ctypes.byref(ctypes.c_long()), ctypes.c_void_p(1), 3]) is not None
    assert prepared(run, [_Pair(1, 2)]) is None
    assert prepared(run, ["text"]) is None
    assert prepared(run, [ctypes.c_float(1)]) is None
    assert prepared(run, [1] * (WHOLE + 1)) is None
    assert prepared(run, [ctypes.c_double(1)] * 3) is None


def test_nothing_is_prepared_where_arguments_arrive_otherwise(monkeypatch):
    monkeypatch.setattr(walking, "_laid_out", lambda run, given, held=None: _LAID_OUT(run, given[::-1]))
    forget()
    try:
        assert prepared(function("probe", PROBE), GIVEN) is None
    finally:
        monkeypatch.undo()
        forget()


_LAID_OUT = walking._laid_out


def test_nothing_is_prepared_without_a_compiler(monkeypatch):
    probe = function("probe", PROBE)
    monkeypatch.setenv("CC", "no-such-compiler")
    forget()
    try:
        assert prepared(probe, GIVEN) is None
    finally:
        monkeypatch.undo()
        forget()
