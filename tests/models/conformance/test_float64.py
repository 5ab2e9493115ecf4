"""A model in float64 computes in float64 from end to end, and its fast form is its reference recurrence there."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import baselines  # noqa: F401  fills the registry
from models import registry
from models.language_model import Size, build
from models.shell.model import deep_enough
from tests.support.models import core_first

NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)
SIZE = Size(32, 32, 2, 2)
PROVIDED = [name for name in registry.names() if "provider" in inspect.signature(registry.entry(name).cls).parameters]


class Narrowed(TorchDispatchMode):
    """Collects the operations that make a number of fewer digits."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype in NARROW for leaf in tree_leaves(out)):
            self.found.add(str(function))
        return out


def model_of(name: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(name, deep_enough(registry.entry(name), SIZE), match=False, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", core_first())
def test_no_operation_in_float64_makes_fewer_digits(name):
    model = model_of(name)
    tokens = torch.randint(SIZE.vocab, (1, model.period + 5))
    with Narrowed() as watched:
        logits, _ = model(tokens)
        logits.square().sum().backward()
    assert watched.found == set()
    assert logits.dtype == torch.float64


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", core_first(PROVIDED))
def test_fast_form_in_float64_is_the_law(name):
    fast, law = model_of(name), model_of(name, provider="recurrence")
    tokens = torch.randint(SIZE.vocab, (2, fast.period + 5))
    answers = [model(tokens)[0] for model in (fast, law)]
    assert (answers[0] - answers[1]).abs().max() < 1e-12 * answers[1].abs().max()
    slopes = [
        torch.autograd.grad(a.square().sum(), list(m.parameters())) for a, m in zip(answers, (fast, law), strict=True)
    ]
    for (key, _), one, other in zip(fast.named_parameters(), *slopes, strict=True):
        assert (one - other).abs().max() <= 1e-10 * other.abs().max(), key


def test_decays_of_retnet_are_exact_in_float64():
    decay = model_of("retnet").blocks[0].mixer.log_decay
    assert torch.equal(decay, torch.log1p(-(2.0 ** (-5 - torch.arange(2, dtype=torch.float64)))))
