"""Feng et al.'s memory against its equations segment by segment, its start, and where its gradients pass."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.feng import Feng
from models.shell.model import Size
from tests.support.references import hold_to_equations, shaken

SEGMENT = 6


def make(**settings) -> Feng:
    torch.manual_seed(0)
    return shaken(Feng(Size(32, 8, 2, 2), 12, **{"segment": SEGMENT, "slots": 3, **settings}))


def text(time: int) -> torch.Tensor:
    return torch.randint(32, (2, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [3, SEGMENT, 3 * SEGMENT, 4 * SEGMENT + 1])
def test_model_is_its_equations(time):
    hold_to_equations(make(), text(time))


def test_first_stage_trains_without_the_memory_and_the_second_with_it():
    model, tokens = make(open_after=2), text(3 * SEGMENT)
    one_stage = make()
    one_stage.load_state_dict(model.state_dict(), strict=False)
    with_memory, _ = one_stage(tokens)
    hold_to_equations(model, tokens)
    assert torch.equal(model(tokens)[0], with_memory)  # no training has begun
    for opened in (False, False, True, True):
        model.warm_up(0.5)
        hold_to_equations(model, tokens)
        alone = torch.cat([model(piece)[0] for piece in tokens.split(SEGMENT, 1)], 1)
        found = model(tokens)[0]
        torch.testing.assert_close(found, with_memory if opened else alone)
    assert not torch.allclose(alone, with_memory)


def test_stage_lies_in_the_checkpoint():
    model, other = make(open_after=1), make(open_after=1)
    model.warm_up(0.0)
    other.load_state_dict(model.state_dict())
    assert not other.opened()
    other.warm_up(1.0)
    assert other.opened() and not model.opened()
    assert "told" not in make().state_dict()


def test_closed_read_gate_leaves_a_transformer_of_segments():
    model, tokens = make(), text(3 * SEGMENT)
    for block in model.blocks:
        torch.nn.init.constant_(block.read_gate.bias, -1e3)
    alone = torch.cat([model(piece)[0] for piece in tokens.split(SEGMENT, 1)], 1)
    torch.testing.assert_close(model(tokens)[0], alone)


def test_open_write_gate_keeps_the_memory():
    model = make()
    for block in model.blocks:
        torch.nn.init.constant_(block.write_gate.bias, 1e3)
    _, (memories, *_) = model(text(3 * SEGMENT))
    for memory, block in zip(memories, model.blocks, strict=True):
        torch.testing.assert_close(memory, block.memory.detach().expand(2, -1, -1))


def test_every_layer_has_a_memory_that_starts_small():
    torch.manual_seed(0)
    model = Feng(Size(32, 64, 2, 2), 12)
    for block in model.blocks:
        assert block.memory.shape == (8, 64) and block.memory.std().item() == pytest.approx(0.02, rel=0.15)


def test_gradients_pass_through_the_memory_unless_it_is_detached():
    for settings, heard in (({}, True), ({"detach_every": 1}, False), ({"detach_every": 2}, False)):
        model = make(**settings)
        seen = []
        model.embedding.register_forward_hook(lambda module, given, y, seen=seen: seen.append(y))
        logits, _ = model(text(3 * SEGMENT))
        (gradient,) = torch.autograd.grad(logits[:, -1].sum(), seen)
        assert gradient[:, :SEGMENT].any() == heard and gradient[:, 2 * SEGMENT :].any()


@pytest.mark.parametrize("settings", [{"segment": 0}, {"slots": 0}, {"detach_every": 0}, {"open_after": -1}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="Feng's memory needs"):
        make(**settings)
