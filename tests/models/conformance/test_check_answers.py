"""What the kit prints: the first differing token, causes before consequences, excuses with their reasons."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from models.conformance import diagnosis
from models.conformance.kit import PROPERTIES, TINY, check
from models.shell.model import Size
from runner.commands import check as checked
from tests.support import broken_mixers as broken
from tests.support.kit_answers import found


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


def test_exception_of_the_family_is_printed_with_its_reason_and_must_be_one(enter):
    answer = found(enter(broken.ExceptedCompares, "first_generation"), "family")
    assert (answer.passed, answer.figure) == (True, "excepted")
    assert answer.detail.startswith("excepted, compares by a rate that is never learned; the transition moves")
    needless = found(enter(broken.ExceptedCompares, "third_generation"), "family")
    assert not needless.passed
    assert "excuses nothing" in needless.detail


def test_figures_are_measured(enter):
    """Two faults of different size give figures of different size."""
    small, large = (found(enter(cls), "rows independent").figure for cls in (broken.Sound, broken.MixesRows))
    assert small < 1e-5 < large


def test_growing_state_passes_if_it_is_declared(enter, monkeypatch):
    monkeypatch.setattr(broken.KeepsAllInputs, "fixed_state", False)
    answer = found(enter(broken.KeepsAllInputs), "state bounded")
    assert answer.passed
    assert "declared as growing" in answer.detail
    assert int(answer.figure.split()[0]) == 2 * (512 - 128) * TINY.width * 4  # both blocks keep every float32 input


def test_unknown_property_and_setting_are_refused(enter):
    with pytest.raises(ValueError, match="There is no property 'speed'; choose from: parameters matched"):
        check(enter(broken.Sound), only=["speed"])
    with pytest.raises(ValueError, match="has no setting 'chunk'"):
        check(enter(broken.Sound), chunk=3)
