"""Whole models through torch.compile: the same numbers, nothing left behind, and no failure unsaid.

torch's compiler is traced and differentiated as always, but stops before it writes C++ (`aot_eager`), which takes minutes; the
slow test goes all the way.
"""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from models.ops import providers
from models.shell import compiled as module
from models.shell.compiled import NAME, CannotCompile, check, compiled
from schema import surroundings

TEXT = torch.randint(32, (2, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    torch._dynamo.reset()


def model_of(name):
    return seeded(name, Size(32, 16, 1, 2), 0)


def loss_and_gradients(model):
    model.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(TEXT[:, :-1])[0].flatten(0, 1), TEXT[:, 1:].flatten())
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", ["transformer", "gated-deltanet"])
def test_a_compiled_model_has_the_same_loss_and_gradients(name):
    model = model_of(name)
    plain = loss_and_gradients(model)
    with compiled(model):
        torch.testing.assert_close(loss_and_gradients(model), plain, rtol=1e-4, atol=1e-6)


def test_rows_can_name_it_and_nothing_is_left_of_it():
    model = model_of("retnet")
    names, keys = set(vars(model)), list(model.state_dict())
    with surroundings.kept() as changed, compiled(model), providers.watch() as ran:
        model(TEXT)
    assert not changed
    assert NAME in ran and set(vars(model)) == names and list(model.state_dict()) == keys
    with providers.watch() as ran:
        model(TEXT)
    assert NAME not in ran


def test_hidden_vectors_are_compiled_too():
    model = model_of("retnet")
    with compiled(model), providers.watch() as ran:
        model.hidden(TEXT, None)
    assert NAME in ran


def test_not_wanted_is_not_compiled():
    model = model_of("retnet")
    with compiled(model, wanted=False), providers.watch() as ran:
        model(TEXT)
    assert NAME not in ran


def test_a_failure_of_the_compiler_is_one_sentence_and_the_model_is_as_before(monkeypatch):
    def fails(graph, inputs):
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(module, "BACKEND", fails)
    model = model_of("retnet")
    with pytest.raises(CannotCompile, match="leave compile out for it: .*no such operator"), compiled(model):
        model(TEXT)
    assert torch.isfinite(model(TEXT)[0]).all()


def test_too_many_forms_of_a_function_are_no_silent_fallback(monkeypatch):
    monkeypatch.setattr(module, "MOST_FORMS", 1)
    model = model_of("retnet")
    with pytest.raises(CannotCompile, match="leave compile out for it: FailOnRecompileLimitHit"), compiled(model):
        for dtype in (torch.float32, torch.float64):
            model.to(dtype)(TEXT)


def test_an_error_of_the_model_itself_stays_what_it_is():
    with pytest.raises(FloatingPointError, match="diverged"), compiled(model_of("retnet")):
        raise FloatingPointError("diverged")


def test_without_a_compiler_a_cpu_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    check("cuda")
    with pytest.raises(CannotCompile, match="needs a C\\+\\+ compiler on a CPU"):
        check("cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_to_machine_code_it_has_the_same_numbers(monkeypatch):
    monkeypatch.setattr(module, "BACKEND", "inductor")
    model = model_of("transformer")
    plain = loss_and_gradients(model)
    with compiled(model):
        torch.testing.assert_close(loss_and_gradients(model), plain, rtol=1e-4, atol=1e-6)
