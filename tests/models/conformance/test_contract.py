"""Every registered model under the conformance kit: one test for each property of each model."""

from __future__ import annotations

from functools import cache

import pytest

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance.kit import PROPERTIES, TINY, examine
from models.conformance.subject import Subject
from models.shell.model import deep_enough


@cache
def subject(name: str) -> Subject:
    return Subject(name, deep_enough(registry.entry(name), TINY))


@pytest.mark.parametrize("question", PROPERTIES)
@pytest.mark.parametrize("name", registry.names())
def test_model_holds(name, question):
    answer = examine(subject(name), question)
    assert answer.passed, f"{name}: {answer.name}: {answer.figure} ({answer.detail})"
