"""Fixtures of the kit's own tests: a class entered for one test, and a shell that spoils what it puts together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import baselines  # noqa: F401  fills the registry
from models import language_model, registry
from models.matching import solver
from models.registry import Entry
from models.shell import model as shell


@pytest.fixture
def enter(monkeypatch):
    """A function that registers a class for one test and returns its name."""

    def put(cls: type, family: str = "yours") -> str:
        group = next(one for one in registry.families() if one.name == family)
        entry = Entry("under-test", cls, group, "none", "none", Path(inspect.getfile(cls)))
        monkeypatch.setitem(registry._entries, entry.name, entry)
        return entry.name

    return put


@pytest.fixture
def assembled_with(monkeypatch):
    """A function that has another one change every model as soon as the shell has put it together."""
    assemble = shell.assemble
    monkeypatch.setattr(solver, "_solved", {})  # shapes found with spoiled models reach no other test

    def spoil(change: Callable[[nn.Module], object]) -> None:
        def spoiled(*given, **named):
            model = assemble(*given, **named)
            change(model)
            return model

        for place in (language_model, solver):
            monkeypatch.setattr(place, "assemble", spoiled)

    return spoil
