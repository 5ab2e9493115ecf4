"""Every registered model under the conformance kit: one test for each property of each model."""

from __future__ import annotations

from functools import cache

import pytest

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance.kit import PROPERTIES, TINY, examine
from models.conformance.subject import Subject
from models.shell.model import deep_enough
from tests.support.models import CORE

# What the quick suite asks of every model, core or not, and what it asks of half of the others each.
ALWAYS = {"parameters matched", "split: around every period", "rows independent", "family", "weight decay"}
IN_TURNS = ("reference", "causality by perturbation")


def marks(name: str, question: str) -> list[pytest.MarkDecorator]:
    turn = IN_TURNS[registry.names().index(name) % 2]
    return [] if name in CORE or question in ALWAYS or question == turn else [pytest.mark.slow]


@cache
def subject(name: str) -> Subject:
    return Subject(name, deep_enough(registry.entry(name), TINY))


@pytest.mark.parametrize(
    ("name", "question"),
    [pytest.param(name, question, marks=marks(name, question)) for name in registry.names() for question in PROPERTIES],
)
def test_model_holds(name, question):
    answer = examine(subject(name), question)
    assert answer.passed, f"{name}: {answer.name}: {answer.figure} ({answer.detail})"
