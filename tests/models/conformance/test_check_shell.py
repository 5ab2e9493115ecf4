"""A shell that changes what the mixers drew, or misses the budget, is caught."""

from __future__ import annotations

import pytest
from torch import nn

from models import language_model
from models.conformance.kit import check
from tests.support import broken_mixers as broken
from tests.support.kit_answers import failed, found


@pytest.mark.parametrize("blocks", [slice(0, 1), slice(1, 2)], ids=["first", "second"])
def test_shell_that_initialises_again_is_caught(enter, assembled_with, blocks):
    def cripple(model):
        for block in model.blocks[blocks]:
            nn.init.normal_(block.mixer.qkv.weight, std=0.02)

    assembled_with(cripple)
    answer = found(enter(broken.Sound), "initial statistics")
    assert not answer.passed
    assert "qkv.weight" in answer.detail


def test_shell_that_draws_again_from_the_same_distribution_is_caught(enter, assembled_with):
    assembled_with(lambda model: model.blocks[0].mixer.qkv.reset_parameters())
    answer = found(enter(broken.Sound), "initial statistics")
    assert not answer.passed
    assert "is not what the mixer alone draws" in answer.detail


def test_embedding_that_is_too_loud_is_caught(enter, assembled_with):
    assembled_with(lambda model: nn.init.normal_(model.embedding.weight, std=0.5))
    assert failed(check(enter(broken.Sound), only=["loss at initialisation", "determinism"])) == {
        "loss at initialisation"
    }


def test_parameters_off_the_budget_are_caught(enter, monkeypatch):
    build = language_model.build
    monkeypatch.setattr(language_model, "build", lambda *given, **settings: build(*given, match=False, **settings))
    answer = found(enter(broken.TooLarge), "parameters matched")
    assert not answer.passed
    assert float(answer.figure.rstrip("%")) > 100


def test_mixer_that_cannot_be_built_has_one_failure_to_tell(enter):
    answers = check(enter(broken.TooLarge))
    assert [(each.name, each.passed, each.figure) for each in answers] == [("builds and trains", False, "NoMatch")]
    assert "cannot be matched" in answers[0].detail
