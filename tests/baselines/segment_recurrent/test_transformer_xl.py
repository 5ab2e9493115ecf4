"""Transformer-XL against its equations token by token, in pieces, with the gradient stopped where the paper stops it."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.transformer_xl import TransformerXL, places
from tests.support.references import apart, in_pieces, shaken

TIME = 29


def make(**settings) -> TransformerXL:
    torch.manual_seed(0)
    return shaken(TransformerXL(12, 2, **{"segment": 6, "memory": 6, **settings}))


def text(time: int = TIME) -> torch.Tensor:
    return torch.randn(2, time, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("segment", "memory", "detach"), [(6, 6, True), (6, 2, True), (4, 11, True), (1, 3, True), (4, 7, False)], ids=str
)
def test_layer_is_its_equations(segment, memory, detach):
    layer, x = make(segment=segment, memory=memory, detach=detach, inner=8), text(17)
    for sizes in ([17], [5, 1, 3]):
        forward, backward = apart(layer, x, sizes)
        assert forward < 1e-12 and backward < 1e-10
    assert (in_pieces(layer, x, [1])[0] - layer(x)[0]).norm() < 1e-12 * layer(x)[0].norm()


def test_gradient_stops_at_the_segment_but_the_values_are_heard():
    layer, x = make(), text().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0][:, 20].sum(), x)
    assert not gradient[:, :18].any() and gradient[:, 18:21].all()
    for place in range(12, 21):  # the memory and the segment
        assert not torch.equal(layer(x.detach().index_fill(1, torch.tensor(place), 0.0))[0][:, 20], layer(x)[0][:, 20])
    (gradient,) = torch.autograd.grad(make(detach=False)(x)[0][:, 20].sum(), x)
    assert not gradient[:, :12].any() and gradient[:, 12:21].all()


def test_weights_learn_from_the_memorys_keys_and_values():
    """Of a segment's first token alone: were the memory's keys and values constants, its own would be all they learn from."""
    layer, x = make(), text(13)
    (memory_too,) = torch.autograd.grad(layer(x)[0][:, 12].sum(), layer.key_value.weight)
    _, state = layer(x[:, :12])
    state = *(part.detach() for part in state[:5]), state[5]
    (own,) = torch.autograd.grad(layer(x[:, 12:], state)[0].sum(), layer.key_value.weight)
    assert (memory_too - own).norm() > 0.1 * own.norm()


def test_longer_memory_acts_in_evaluation_alone():
    short, long = make(), make(evaluation_memory=17)
    long.load_state_dict(short.state_dict())
    assert torch.equal(short(text())[0], long(text())[0])
    whole, _ = long.eval()(text())
    assert not torch.equal(short(text())[0], whole)
    right, _ = TransformerXL.reference(make(memory=17), text())
    assert (whole - right).norm() < 1e-12 * right.norm()
    assert (in_pieces(long, text(), [5, 4, 1, 13])[0] - right).norm() < 1e-12 * right.norm()


def test_places_are_sines_then_cosines_of_distances():
    table = places(torch.tensor([0, 3]), 4, torch.float64)
    expected = torch.tensor([[0, 0, 1, 1], [3.0, 0.03, 3.0, 0.03]], dtype=torch.float64)
    expected[1, :2], expected[1, 2:] = expected[1, :2].sin(), expected[1, 2:].cos()
    torch.testing.assert_close(table, expected)


def test_everything_starts_normal_with_the_authors_spread():
    torch.manual_seed(0)
    for name, parameter in TransformerXL(64, 4).named_parameters():
        assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name


@pytest.mark.parametrize("settings", [{"segment": 0}, {"memory": 0}, {"evaluation_memory": 0}, {"inner": 9}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="Transformer-XL needs"):
        make(**settings)
