"""Former names of modules give the modules themselves."""

from __future__ import annotations

import importlib
import sys

import pytest

import baselines  # noqa: F401
import tasks  # noqa: F401
from schema.moved import MOVED


@pytest.mark.parametrize("former", [name for name in MOVED if name.startswith("tasks.")])
def test_a_former_name_gives_the_module_itself(former, monkeypatch):
    monkeypatch.delitem(sys.modules, former, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{former} is {MOVED[former]} now"):
        module = importlib.import_module(former)
    assert module is importlib.import_module(MOVED[former])
    assert module.__name__ == module.__spec__.name == MOVED[former]


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="No module named 'tasks.none'"):
        importlib.import_module("tasks.none")
