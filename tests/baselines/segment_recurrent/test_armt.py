"""ARMT against its equations segment by segment, its features, its start, and where its gradients pass."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.armt import ARMT, AssociativeMemory, features
from models.shell.model import Size
from tests.support.references import hold_to_equations, shaken

SEGMENT = 6


def make(**settings) -> ARMT:
    torch.manual_seed(0)
    return shaken(ARMT(Size(32, 8, 2, 2), 12, **{"segment": SEGMENT, "memory": 3, "keys": 4, **settings}))


def text(time: int) -> torch.Tensor:
    return torch.randint(32, (2, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [3, SEGMENT, 3 * SEGMENT, 4 * SEGMENT + 1])
def test_model_is_its_equations(time):
    hold_to_equations(make(), text(time))


def test_features_are_products_of_neighbours_of_unit_length():
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    parts = [1.0, 0.0, 0.5, 0.0, 2.0, 0.0]
    expected = torch.tensor([[parts[i] * parts[i - j] for j in (1, 2, 3) for i in range(6)]], dtype=torch.float64)
    torch.testing.assert_close(features(x), expected / expected.norm())


def test_memory_gives_back_what_was_written_and_corrects_it():
    """A row that is written with rate 1, and once more with another value, is read as the latter."""
    torch.manual_seed(0)
    memory = AssociativeMemory(4, 3).double()
    with torch.no_grad():
        memory.value.weight.copy_(torch.eye(4))
        memory.rate.bias.fill_(50.0)
        memory.key.weight.copy_(torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]]))
        memory.query.weight.copy_(memory.key.weight)
    first, other = (torch.tensor([[row]], dtype=torch.float64) for row in ([1.0, 2, 3, 1], [-3.0, 1, 0, 1]))
    state = memory.write(first, None)
    torch.testing.assert_close(memory.read(first, state), first, rtol=1e-4, atol=1e-4)
    state = memory.write(other, state)
    torch.testing.assert_close(memory.read(first, state), other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state[1].square().sum().sqrt().item(), 1.0, rtol=1e-3, atol=0)  # the key counts once


def test_nothing_is_read_at_first():
    torch.manual_seed(0)
    model, tokens = ARMT(Size(32, 8, 2, 2), 12, segment=SEGMENT), text(2 * SEGMENT)
    assert not any(own.value.weight.any() for own in model.memories)
    alone = model(tokens[:, SEGMENT:])[0]
    assert torch.allclose(model(tokens)[0][:, SEGMENT:], alone, atol=1e-6)


def test_gradients_pass_through_the_memory_unless_it_is_detached():
    for settings, heard in (({}, True), ({"detach_every": 1}, False), ({"detach_every": 2}, False)):
        model = make(**settings)
        seen = []
        model.embedding.register_forward_hook(lambda module, given, y, seen=seen: seen.append(y))
        logits, _ = model(text(3 * SEGMENT))
        (gradient,) = torch.autograd.grad(logits[:, -1].sum(), seen)
        assert gradient[:, :SEGMENT].any() == heard and gradient[:, 2 * SEGMENT :].any()


@pytest.mark.parametrize("settings", [{"segment": 0}, {"memory": 0}, {"keys": 0}, {"detach_every": 0}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="ARMT needs"):
        make(**settings)
