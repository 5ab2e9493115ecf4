"""Broken mixers, each caught by the property that is there for it, and a sound one that passes everything."""

from __future__ import annotations

import math

import pytest
import torch

from models.conformance import training
from models.conformance.kit import PROPERTIES, TINY, check
from models.conformance.subject import Subject, difference
from tests.support import broken_mixers as broken
from tests.support.kit_answers import failed, found

SPLITS = {name for name in PROPERTIES if name.startswith("split")}
CAUSALITY = {"causality by perturbation", "causality by gradient"}
# What reads a text in pieces, or cuts it, fails with a state that is wrong.
PIECES = SPLITS | {"short texts", "state carries gradient", "eval mode", "empty piece", "state of another dtype"}
EVERYTHING = set(PROPERTIES)
SLOW = {"overfits one batch", "initial statistics", "loss at initialisation", "determinism", "round trip"}
LONG = SPLITS | CAUSALITY | {"state bounded", "reference", "family"}  # take nearly all of the others' time

# The properties that must fail, and those that may besides.
BROKEN: list[tuple[type, set[str], set[str]]] = [
    (broken.SeesNextToken, CAUSALITY, PIECES),
    (broken.SeesMeanOfText, CAUSALITY, PIECES),
    (broken.SeesLaterValueOnly, {"causality by perturbation"}, PIECES),
    (broken.MixesRows, {"rows independent"}, {"state batch-first"}),
    (broken.MixesRowsOfState, {"rows independent"}, PIECES | {"state batch-first"}),
    (broken.DropsState, SPLITS | {"state carries gradient"}, PIECES),
    (broken.DropsStateAtPeriod, {"split: around every period", "split: single tokens"}, PIECES),
    (broken.WritesIntoState, {"state untouched"}, set()),
    (broken.WritesIntoGrowingState, {"state untouched"}, set()),
    (broken.CountsInState, {"state untouched"}, set()),
    (broken.DetachesState, {"state carries gradient"}, set()),
    (broken.KeepsAllInputs, {"state bounded"}, set()),
    (broken.KeepsViewOfInputs, {"state bounded"}, set()),
    (broken.ClaimsNothing, {"state bounded"}, set()),
    (broken.StateWithoutBatch, {"state batch-first"}, {"split: beyond 512 tokens", "empty piece", "state bounded"}),
    (broken.StateWithFloat, {"state batch-first"}, set()),
    (broken.UnusedParameter, {"gradient to every parameter"}, set()),
    (broken.ZeroGradient, {"gradient to every parameter"}, set()),
    (broken.GradientNotANumber, {"gradient to every parameter"}, EVERYTHING),
    (broken.ExcusesNothing, {"gradient to every parameter"}, set()),
    (broken.Noisy, {"determinism"}, EVERYTHING),
    (broken.HidesParameter, {"round trip"}, set()),
    (broken.WrongInHalf, {"bfloat16"}, set()),
    (broken.FailsInHalf, {"bfloat16"}, set()),
    (broken.NoMemory, {"causality by gradient", "overfits one batch"}, set()),
    (broken.NeedsTwoTokens, {"short texts", "split: single tokens"}, PIECES | {"state untouched", "state bounded"}),
    (broken.ClaimsToGrow, {"state bounded"}, set()),
    (broken.DropsStateLate, {"split: beyond 512 tokens"}, set()),
    (broken.DropsStateInEval, {"eval mode"}, set()),
    (broken.SeesNextTokenInEval, {"eval mode"}, set()),
    (broken.DecaysTwiceEvery16, {"reference"}, set()),
    (broken.GradientOffTheLaw, {"reference"}, set()),
    (broken.DetachesUnsaid, {"causality by gradient"}, set()),
    (broken.DetachesAndForgets, {"causality by gradient"}, set()),
    (broken.LooksIntoComplexRows, {"rows independent"}, PIECES | {"state batch-first"}),
    (broken.StumblesOverNothing, {"empty piece"}, set()),
    (broken.ForgetsOverNothing, {"empty piece"}, set()),
    (broken.StumblesOverDoubles, {"state of another dtype"}, set()),
    (broken.BlindToDoubles, {"state of another dtype"}, set()),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "cls",
    [broken.Sound, broken.SoundWithReference, broken.DetachesAtBorders, broken.Turns, broken.Whole],
    ids=lambda value: value.__name__,
)
def test_sound_model_passes_everything(enter, cls):
    properties = check(enter(cls))
    assert [each.name for each in properties] == list(PROPERTIES)
    assert failed(properties) == set()
    assert all(each.detail for each in properties)


@pytest.mark.parametrize("is_quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize(("cls", "must", "may"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_mixer_is_caught_by_the_right_property(enter, cls, must, may, is_quick):
    """The quick suite asks what must fail and what is cheap; the slow one asks whether anything else fails too."""
    asked = [name for name in PROPERTIES if name in must or name not in SLOW and not (is_quick and name in LONG)]
    faults = failed(check(enter(cls), only=asked))
    assert must <= faults <= must | may


@pytest.mark.parametrize(
    ("cls", "families"),
    [
        (broken.Sound, {"first_generation"}),
        (broken.DecaysByInput, {"second_generation"}),
        (broken.DecaysFaintlyByInput, {"second_generation"}),
        (broken.Compares, {"third_generation"}),
        (broken.ForgetsAtOnce, set()),
        (broken.Turns, {"first_generation"}),
        (broken.TurnsByInput, {"second_generation"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_transition_fits_one_generation_only(enter, cls, families):
    asked = ("first_generation", "second_generation", "third_generation")
    assert {each for each in asked if found(enter(cls, each), "family").passed} == families


def test_other_families_are_not_asked_for_their_transition(enter):
    assert {found(enter(broken.Compares, each), "family").figure for each in ("titans", "yours")} == {"not asked"}


def test_recurrent_memory_that_detaches_is_tested_by_value():
    answer = found("rmt", "causality by gradient", detach_every=1)
    assert answer.passed
    assert "earlier tokens were changed" in answer.detail


@pytest.mark.parametrize("name", ["retnet", "gla", "titans-lmm"])
def test_models_with_providers_are_held_to_their_loop(name):
    answer = found(name, "reference")
    assert answer.passed
    assert "provider 'recurrence'" in answer.detail


def test_difference_is_relative_and_never_hides_what_is_not_a_number():
    other = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]])
    assert difference(other * torch.tensor([1.0, 1.1])[:, None, None], other) == pytest.approx(0.1, rel=1e-5)
    assert difference(torch.full_like(other, math.nan), other) == math.inf
    assert difference(other, torch.full_like(other, math.inf)) == math.inf


def test_best_loss_without_memory_is_that_of_the_pairs():
    batch = torch.tensor([[0, 1, 0, 2, 0, 1, 0, 2, 0]])  # 0 is followed by 1 or 2, evenly; 1 and 2 by 0
    assert training._without_memory(batch) == pytest.approx(0.5 * math.log(2), abs=1e-6)


def test_the_examined_model_is_the_same_whichever_property_asks_first(enter):
    plain = Subject(enter(broken.Sound), TINY)
    for context in (torch.autocast("cpu", torch.bfloat16), torch.no_grad()):
        other = Subject(plain.name, TINY)
        with context:
            parameters = dict(other.model.named_parameters())
        assert all(torch.equal(p, parameters[name]) for name, p in plain.model.named_parameters())
