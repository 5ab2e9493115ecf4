"""Broken mixers, each caught by the property that is there for it, and a sound one that passes everything."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import baselines  # noqa: F401  fills the registry with the reference
from models import check_state, check_training, language_model, registry
from models.check import PROPERTIES, TINY, Property, check
from models.check_subject import Subject, difference
from models.kernels.scan import chunked
from models.layers import split_heads
from models.registry import Entry

SPLITS = {name for name in PROPERTIES if name.startswith("split")}
CAUSALITY = {"causality by perturbation", "causality by gradient"}


class Sound(nn.Module):
    """Linear attention with a fixed decay: the least mixer that holds the contract."""

    period = 64
    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state=None) -> tuple[Tensor, tuple]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        decay = torch.full((*q.shape[:3],), -0.05, device=x.device)
        y, matrix = chunked(q, k, v, log_forget=decay, state=None if state is None else state[0])
        return self.out(y.flatten(2)), (matrix,)


class SeesNextToken(Sound):
    def forward(self, x, state=None):
        return super().forward(x + 0.01 * torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1), state)


class SeesMeanOfText(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y - 0.1 * y.mean(1, keepdim=True), state


class SeesLaterValueOnly(Sound):
    """A leak that no gradient shows."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.1 * (x[:, -1:, :1] > 0), state


class MixesRows(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.01 * x.mean(0, keepdim=True), state


class MixesRowsOfState(Sound):
    def forward(self, x, state=None):
        if state is not None:
            state = (0.9 * state[0] + 0.1 * state[0].mean(0, keepdim=True),)
        return super().forward(x, state)


class DropsState(Sound):
    def forward(self, x, state=None):
        return super().forward(x, None)


class DropsStateAtPeriod(Sound):
    """Forgets where a piece begins exactly at a period's border."""

    def forward(self, x, state=None):
        place = 0 if state is None else state[1]
        y, (matrix,) = super().forward(x, None if state is None or place % 64 == 0 else state)
        return y, (matrix, place + x.shape[1])


class WritesIntoState(Sound):
    def forward(self, x, state=None):
        if state is not None and not torch.is_grad_enabled():
            y, (matrix,) = super().forward(x, state)
            state[0].copy_(matrix)
            return y, state
        return super().forward(x, state)


class CountsInState(Sound):
    """Changes the state passed in where no logit shows it."""

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        seen = x.new_zeros(x.shape[0]) if state is None else state[1]
        return y, (matrix, seen.add_(x.shape[1]))


class DetachesState(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix.detach(),)


class KeepsAllInputs(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, x if state is None else torch.cat([state[1], x], 1))


class KeepsViewOfInputs(Sound):
    """The last input, but as a view that keeps the whole piece alive."""

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, x[:, -1:])


class ClaimsNothing(Sound):
    fixed_state = None


class StateWithoutBatch(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, None if state is None else (state[0].movedim(1, 0),))
        return y, (matrix.movedim(0, 1),)


class StateWithFloat(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, 0.5)


class UnusedParameter(Sound):
    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.spare = nn.Parameter(torch.zeros(3))


class ZeroGradient(UnusedParameter):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0 * self.spare.sum(), state


class GradientNotANumber(UnusedParameter):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0 * self.spare.sum().sqrt(), state


class ExcusedParameter(UnusedParameter):
    no_gradient = {"spare": "kept for a rainy day"}


class ExcusesNothing(Sound):
    no_gradient = {"ghost": "is not there"}


class Noisy(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 1e-3 * torch.randn_like(y), state


class HidesParameter(Sound):
    """A drawn number that the state dict does not hold."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.hidden = torch.rand(1)

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y * (1 + self.hidden.to(y)), state


class WrongInHalf(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + 1 if torch.is_autocast_enabled("cpu") else y), state


class FailsInHalf(Sound):
    """Mixes the dtypes that autocast gives."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        place = torch.arange(x.shape[1])[None, :, None].expand(x.shape)
        return torch.zeros_like(x).scatter_add(1, place, y), state


class NoMemory(nn.Module):
    period = 1
    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, state=None):
        return self.out(x), ()


class NeedsTwoTokens(Sound):
    def forward(self, x, state=None):
        if x.shape[1] == 1:
            raise IndexError("one token is too short")
        return super().forward(x, state)


class TooLarge(Sound):
    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.spare = nn.Parameter(torch.ones(100_000))


PIECES = SPLITS | {"short texts", "state carries gradient"}
EVERYTHING = set(PROPERTIES)
SLOW = {"one batch by heart", "initial statistics", "loss at initialisation", "determinism", "round trip"}

# The properties that must fail, and those that may besides.
BROKEN: list[tuple[type, set[str], set[str]]] = [
    (SeesNextToken, CAUSALITY, PIECES),
    (SeesMeanOfText, CAUSALITY, PIECES),
    (SeesLaterValueOnly, {"causality by perturbation"}, PIECES),
    (MixesRows, {"rows independent"}, {"state batch-first"}),
    (MixesRowsOfState, {"rows independent"}, PIECES | {"state batch-first"}),
    (DropsState, SPLITS | {"state carries gradient"}, set()),
    (DropsStateAtPeriod, {"split: around every period", "split: single tokens"}, set()),
    (WritesIntoState, {"state untouched"}, set()),
    (CountsInState, {"state untouched"}, set()),
    (DetachesState, {"state carries gradient"}, set()),
    (KeepsAllInputs, {"state bounded"}, set()),
    (KeepsViewOfInputs, {"state bounded"}, set()),
    (ClaimsNothing, {"state bounded"}, set()),
    (StateWithoutBatch, {"state batch-first"}, set()),
    (StateWithFloat, {"state batch-first"}, set()),
    (UnusedParameter, {"gradient to every parameter"}, set()),
    (ZeroGradient, {"gradient to every parameter"}, set()),
    (GradientNotANumber, {"gradient to every parameter"}, EVERYTHING),
    (ExcusesNothing, {"gradient to every parameter"}, set()),
    (Noisy, {"determinism"}, EVERYTHING),
    (HidesParameter, {"round trip"}, set()),
    (WrongInHalf, {"bfloat16"}, set()),
    (FailsInHalf, {"bfloat16"}, set()),
    (NoMemory, {"causality by gradient", "one batch by heart"}, set()),
    (NeedsTwoTokens, {"short texts", "split: single tokens"}, PIECES | {"state untouched", "state bounded"}),
]


@pytest.fixture
def enter(monkeypatch):
    """A function that registers a class for one test and returns its name."""

    def put(cls: type) -> str:
        entry = Entry("under-test", cls, "yours", "none", "none", Path(inspect.getfile(cls)))
        monkeypatch.setitem(registry._entries, entry.name, entry)
        return entry.name

    return put


def failed(properties: list[Property]) -> set[str]:
    return {each.name for each in properties if not each.passed}


def found(name: str, only: str, **settings) -> Property:
    return check(name, only=[only], **settings)[0]


def test_sound_mixer_passes_everything(enter):
    properties = check(enter(Sound))
    assert [each.name for each in properties] == list(PROPERTIES)
    assert failed(properties) == set()
    assert all(each.detail for each in properties)


@pytest.mark.parametrize(("cls", "must", "may"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_mixer_is_caught_by_the_right_property(enter, cls, must, may):
    asked = [name for name in PROPERTIES if name not in SLOW or name in must]
    faults = failed(check(enter(cls), only=asked))
    assert must <= faults <= must | may


def test_excused_parameter_passes_with_its_reason(enter):
    answer = found(enter(ExcusedParameter), "gradient to every parameter")
    assert answer.passed
    assert "blocks.0.mixer.spare: kept for a rainy day" in answer.detail


def test_gradient_fault_names_the_parameter_and_what_is_wrong(enter):
    assert "blocks.1.mixer.spare: no gradient" in found(enter(UnusedParameter), "gradient to every parameter").detail
    assert "blocks.1.mixer.spare: gradient zero" in found(enter(ZeroGradient), "gradient to every parameter").detail


@pytest.mark.parametrize("blocks", [slice(0, 1), slice(1, 2)], ids=["first", "second"])
def test_shell_that_initialises_again_is_caught(enter, monkeypatch, blocks):
    assemble = language_model.assemble

    def crippling(*given):
        model = assemble(*given)
        for block in model.blocks[blocks]:
            nn.init.normal_(block.mixer.qkv.weight, std=0.02)
        return model

    monkeypatch.setattr(language_model, "assemble", crippling)
    answer = found(enter(Sound), "initial statistics")
    assert not answer.passed
    assert "qkv.weight" in answer.detail


def test_embedding_that_is_too_loud_is_caught(enter, monkeypatch):
    assemble = language_model.assemble

    def loud(*given):
        model = assemble(*given)
        nn.init.normal_(model.embedding.weight, std=0.5)
        return model

    monkeypatch.setattr(language_model, "assemble", loud)
    assert failed(check(enter(Sound), only=["loss at initialisation", "determinism"])) == {"loss at initialisation"}


def test_parameters_off_the_budget_are_caught(enter, monkeypatch):
    build = language_model.build
    monkeypatch.setattr(language_model, "build", lambda *given, **settings: build(*given, match=False, **settings))
    answer = found(enter(TooLarge), "parameters matched")
    assert not answer.passed
    assert float(answer.figure.rstrip("%")) > 100


def test_mixer_that_cannot_be_built_has_one_failure_to_tell(enter):
    answers = check(enter(TooLarge))
    assert [(each.name, each.passed, each.figure) for each in answers] == [("builds and trains", False, "NoMatch")]
    assert "cannot be matched" in answers[0].detail


def test_growing_state_passes_if_it_is_declared(enter, monkeypatch):
    monkeypatch.setattr(KeepsAllInputs, "fixed_state", False)
    answer = found(enter(KeepsAllInputs), "state bounded")
    assert answer.passed
    assert "declared as growing" in answer.detail
    assert int(answer.figure.split()[0]) == 2 * (512 - 128) * TINY.width * 4  # both blocks keep every float32 input


def test_figures_are_measured(enter):
    """Two faults of different size give figures of different size."""
    small, large = (found(enter(cls), "rows independent").figure for cls in (Sound, MixesRows))
    assert small < 1e-5 < large


def test_unknown_property_and_setting_are_refused(enter):
    with pytest.raises(ValueError, match="There is no property 'speed'; choose from: parameters matched"):
        check(enter(Sound), only=["speed"])
    with pytest.raises(ValueError, match="has no setting 'chunk'"):
        check(enter(Sound), chunk=3)


def test_text_is_longer_than_two_periods(enter, monkeypatch):
    monkeypatch.setattr(Sound, "period", 100)
    subject = Subject(enter(Sound), TINY)
    assert subject.length > 200
    assert subject.text.shape == (2, subject.length)


def test_thorough_decodes_a_longer_text(enter, monkeypatch):
    assert check_state.LONG == 4096
    monkeypatch.setattr(check_state, "LONG", 600)
    answer = found(enter(Sound), "split: single tokens", thorough=True)
    assert answer.passed
    assert "600 tokens in 600 pieces" in answer.detail


def test_difference_is_relative_and_never_hides_what_is_not_a_number():
    other = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]])
    assert difference(other * torch.tensor([1.0, 1.1])[:, None, None], other) == pytest.approx(0.1, rel=1e-5)
    assert difference(torch.full_like(other, math.nan), other) == math.inf
    assert difference(other, torch.full_like(other, math.inf)) == math.inf


def test_best_loss_without_memory_is_that_of_the_pairs():
    batch = torch.tensor([[0, 1, 0, 2, 0, 1, 0, 2, 0]])  # 0 is followed by 1 or 2, evenly; 1 and 2 by 0
    assert check_training._without_memory(batch) == pytest.approx(0.5 * math.log(2), abs=1e-6)
