"""Memformer against its equations segment by segment, its normalisation, its start, and where its gradients pass."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.memformer import Memformer
from models.shell.model import Size
from tests.support.references import hold_to_equations, shaken

SEGMENT = 6


def make(**settings) -> Memformer:
    torch.manual_seed(0)
    return shaken(Memformer(Size(32, 8, 2, 2), 12, **{"segment": SEGMENT, "slots": 3, **settings}))


def text(time: int) -> torch.Tensor:
    return torch.randint(32, (2, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [3, SEGMENT, 3 * SEGMENT, 4 * SEGMENT + 1])
def test_model_is_its_equations(time):
    hold_to_equations(make(), text(time))


@pytest.mark.parametrize(("time", "stack"), [(3, 1), (3 * SEGMENT, 1), (4 * SEGMENT + 1, 2)])
def test_gated_write_is_its_equations(time, stack):
    hold_to_equations(make(write="gate", stack=stack), text(time))


def test_shut_gate_keeps_the_slots_and_an_open_one_takes_the_new():
    for bias, kept in ((-1e3, True), (1e3, False)):
        writer = make(write="gate").writer
        torch.nn.init.constant_(writer.gate.bias, bias)
        rows = torch.randn(2, SEGMENT, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        slots = writer.first(2)
        taken = slots if kept else writer.layers[0](slots, rows)
        torch.testing.assert_close(writer(slots, rows), writer.norm(taken + writer.bias))


def test_slots_have_unit_length_and_forget_towards_their_bias():
    model = make()
    slots = model.writer.first(2)
    bias = model.writer.bias.detach()
    torch.testing.assert_close(slots[0], bias / bias.norm(dim=-1, keepdim=True))
    _, (slots, *_) = model(text(2 * SEGMENT))
    torch.testing.assert_close(slots.norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))
    far = torch.randn(2, 3, 8, dtype=torch.float64)
    for _ in range(40):
        far = model.writer.normed(far)
    torch.testing.assert_close(far, model.writer.first(2), rtol=1e-2, atol=1e-1)


def test_slots_start_apart():
    torch.manual_seed(0)
    writer = Memformer(Size(32, 64, 1, 2), 12).writer
    assert writer.bias.std().item() == pytest.approx(1 / 8, rel=0.1)
    alike = writer.first(1)[0] @ writer.first(1)[0].T - torch.eye(16)
    assert alike.abs().max() < 0.6


def test_gradients_pass_through_the_slots_unless_they_are_detached():
    for settings, heard in (({}, True), ({"detach_every": 1}, False), ({"detach_every": 2}, False)):
        model = make(**settings)
        seen = []
        model.embedding.register_forward_hook(lambda module, given, y, seen=seen: seen.append(y))
        logits, _ = model(text(3 * SEGMENT))
        (gradient,) = torch.autograd.grad(logits[:, -1].sum(), seen)
        assert gradient[:, :SEGMENT].any() == heard and gradient[:, 2 * SEGMENT :].any()


@pytest.mark.parametrize(
    "settings", [{"segment": 0}, {"slots": 0}, {"stack": 0}, {"temperature": 0.0}, {"detach_every": 0}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="Memformer needs"):
        make(**settings)
