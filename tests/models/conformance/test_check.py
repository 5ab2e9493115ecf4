"""Broken mixers, each caught by the property that is there for it, and a sound one that passes everything."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import baselines  # noqa: F401  fills the registry with the reference
from models import language_model, registry
from models.conformance import diagnosis, state, training
from models.conformance.kit import PROPERTIES, TINY, Property, check
from models.conformance.subject import Subject, difference
from models.matching import solver
from models.registry import Entry
from models.shell import model as shell
from models.shell.model import Size
from runner.commands import check as checked
from tests.support import broken_mixers as broken

SPLITS = {name for name in PROPERTIES if name.startswith("split")}
CAUSALITY = {"causality by perturbation", "causality by gradient"}
# What reads a text in pieces, or cuts it, fails with a state that is wrong.
PIECES = SPLITS | {"short texts", "state carries gradient", "eval mode", "empty piece", "state of another dtype"}
EVERYTHING = set(PROPERTIES)
SLOW = {"overfits one batch", "initial statistics", "loss at initialisation", "determinism", "round trip"}

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


def failed(properties: list[Property]) -> set[str]:
    return {each.name for each in properties if not each.passed}


def found(name: str, only: str, **settings) -> Property:
    return check(name, only=[only], **settings)[0]


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


@pytest.mark.parametrize(("cls", "must", "may"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_mixer_is_caught_by_the_right_property(enter, cls, must, may):
    asked = [name for name in PROPERTIES if name not in SLOW or name in must]
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


def test_exception_of_the_family_is_printed_with_its_reason_and_must_be_one(enter):
    answer = found(enter(broken.ExceptedCompares, "first_generation"), "family")
    assert (answer.passed, answer.figure) == (True, "excepted")
    assert answer.detail.startswith("excepted, compares by a rate that is never learned; the transition moves")
    needless = found(enter(broken.ExceptedCompares, "third_generation"), "family")
    assert not needless.passed
    assert "excuses nothing" in needless.detail


@pytest.mark.parametrize(
    ("cls", "name", "says"),
    [
        (broken.DropsState, "split: pieces of 37", "differs from token 37 on, 0 behind the cut at 37"),
        (broken.DropsStateLate, "split: beyond 512 tokens", "differs from token 513 on, 0 behind the cut at 513"),
        (broken.SeesNextToken, "causality by perturbation", "the logits at token 0 see token 1"),
        (broken.MixesRows, "rows independent", "row 0 moves with row 1 from token 0 on"),
        (broken.DecaysTwiceEvery16, "reference", "leaves the class's reference law_of_sound at token 15 of 85"),
        (broken.GradientOffTheLaw, "reference", "the gradient of"),
        (broken.DropsStateInEval, "eval mode", "in eval mode a text in pieces differs from the whole from token 1 on"),
        (broken.DetachesAndForgets, "causality by gradient", "do not move with any earlier token"),
        (broken.ClaimsToGrow, "state bounded", "fixed_state = False says that the state grows, and it does not"),
        (broken.NoMemory, "overfits one batch", "in 150 steps"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_failure_names_the_first_differing_token(enter, cls, name, says):
    answer = found(enter(cls), name)
    assert not answer.passed
    assert says in answer.detail


def test_steps_to_learn_by_heart_are_printed(enter):
    answer = found(enter(broken.Sound), "overfits one batch")
    steps = int(answer.detail.split(" in ")[1].split()[0])
    assert answer.passed
    assert 0 < steps < 150


def test_recurrent_memory_that_detaches_is_tested_by_value():
    answer = found("rmt", "causality by gradient", detach_every=1)
    assert answer.passed
    assert "earlier tokens were changed" in answer.detail


@pytest.mark.parametrize("name", ["retnet", "gla", "titans-lmm"])
def test_models_with_providers_are_held_to_their_loop(name):
    answer = found(name, "reference")
    assert answer.passed
    assert "provider 'recurrence'" in answer.detail


def test_cause_stands_before_its_consequences(enter):
    name, console = enter(broken.SeesNextToken), Console(file=io.StringIO(), width=200)
    checked.contract([name], {}, False, console, Size(64, 16, 1, 2))
    fails = [line.strip() for line in console.file.getvalue().splitlines() if "FAILS" in line]
    assert fails[0].startswith("FAILS  probable cause, a token sees a later one: causality by perturbation: ")
    assert "the logits at token 0 see token 1" in fails[0]
    assert all(line.startswith("FAILS  (may follow from it) ") for line in fails[1:])
    assert "holds" not in console.file.getvalue().split("FAILS", 1)[1]


def test_independent_failures_are_no_consequences():
    names, follow = diagnosis.ordered(["bfloat16", "split: random places", "state untouched", "family"])
    assert names == ["state untouched", "bfloat16", "family", "split: random places"]
    assert follow == {"split: random places"}
    assert diagnosis.ordered([]) == ([], set())


def test_diagnosis_knows_every_property_that_it_names():
    named = {*diagnosis.CAUSES, *(each for cause in diagnosis.CAUSES.values() for each in cause.brings)}
    assert named - set(PROPERTIES) == {"builds and trains", "everything else"}


def test_excused_parameter_passes_with_its_reason(enter):
    answer = found(enter(broken.ExcusedParameter), "gradient to every parameter")
    assert answer.passed
    assert "blocks.0.mixer.spare: kept for a rainy day" in answer.detail


def test_gradient_fault_names_the_parameter_and_what_is_wrong(enter):
    assert (
        "blocks.1.mixer.spare: no gradient"
        in found(enter(broken.UnusedParameter), "gradient to every parameter").detail
    )
    assert (
        "blocks.1.mixer.spare: gradient zero" in found(enter(broken.ZeroGradient), "gradient to every parameter").detail
    )


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


def test_growing_state_passes_if_it_is_declared(enter, monkeypatch):
    monkeypatch.setattr(broken.KeepsAllInputs, "fixed_state", False)
    answer = found(enter(broken.KeepsAllInputs), "state bounded")
    assert answer.passed
    assert "declared as growing" in answer.detail
    assert int(answer.figure.split()[0]) == 2 * (512 - 128) * TINY.width * 4  # both blocks keep every float32 input


def test_figures_are_measured(enter):
    """Two faults of different size give figures of different size."""
    small, large = (found(enter(cls), "rows independent").figure for cls in (broken.Sound, broken.MixesRows))
    assert small < 1e-5 < large


def test_unknown_property_and_setting_are_refused(enter):
    with pytest.raises(ValueError, match="There is no property 'speed'; choose from: parameters matched"):
        check(enter(broken.Sound), only=["speed"])
    with pytest.raises(ValueError, match="has no setting 'chunk'"):
        check(enter(broken.Sound), chunk=3)


def test_text_is_longer_than_two_periods(enter, monkeypatch):
    monkeypatch.setattr(broken.Sound, "period", 100)
    subject = Subject(enter(broken.Sound), TINY)
    assert subject.length > 200
    assert subject.text.shape == (2, subject.length)


def test_thorough_decodes_a_longer_text(enter, monkeypatch):
    assert state.LONG == 4096
    monkeypatch.setattr(state, "LONG", 600)
    answer = found(enter(broken.Sound), "split: single tokens", thorough=True)
    assert answer.passed
    assert "600 tokens in 600 pieces" in answer.detail


@pytest.mark.parametrize(
    ("cls", "passes"),
    [(broken.FaintlyOffInPieces, False), (broken.CoarseInPieces, False), (broken.IllConditioned, True)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_thorough_decoding_tells_rounding_from_a_fault(enter, monkeypatch, cls, passes):
    monkeypatch.setattr(state, "LONG", 200)
    answer = found(enter(cls), "split: single tokens", thorough=True)
    assert answer.figure > state.SPLIT
    assert answer.passed == passes
    assert "in float64" in answer.detail


@pytest.mark.parametrize(("cls", "passes"), [(broken.Sound, True), (broken.FaintlyOffInPieces, False)])
def test_what_amplifies_rounding_is_decoded_stretch_by_stretch(enter, monkeypatch, cls, passes):
    """The excuse covers no fault: pieces that are off are found in every stretch."""
    monkeypatch.setattr(state, "LONG", 300)
    monkeypatch.setattr(cls, "amplifies_rounding", "it is so made", raising=False)
    answer = found(enter(cls), "split: single tokens", thorough=True)
    assert answer.passed == passes
    assert "300 tokens in stretches of 256" in answer.detail and answer.detail.endswith("it is so made")


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
