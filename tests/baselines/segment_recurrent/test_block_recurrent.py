"""Block-Recurrent Transformer against its equations, its states' gates by hand, its window, its buckets and its start."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from baselines.segment_recurrent.block_recurrent import BlockRecurrent, RecurrentLayer, WindowLayer, buckets
from models.shell.model import Size
from tests.support.references import hold_to_equations, shaken

WINDOW = 6


def make(depth: int = 2, **settings) -> BlockRecurrent:
    torch.manual_seed(0)
    return shaken(BlockRecurrent(Size(32, 8, depth, 2), 12, **{"window": WINDOW, "states": 3, **settings}))


def text(time: int) -> torch.Tensor:
    return torch.randint(32, (2, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [3, WINDOW, 4 * WINDOW, 3 * WINDOW + 1])
def test_model_is_its_equations(time):
    hold_to_equations(make(), text(time))


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("gate", ["bias", "lstm", "full"])
def test_states_move_as_the_equations_say(gate):
    layer, draw = make(gate=gate).blocks[0].mixer, torch.Generator().manual_seed(2)
    states, keys, values = (torch.randn(n, 2, 4, dtype=torch.float64, generator=draw) for n in (3, 12, 12))
    keys, flat = unit(keys), states.flatten(1)
    x = flat / (flat.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.state_norm.weight + layer.place
    k, v, q, other = (layer.state_project.weight[8 * i : 8 * i + 8] @ x.T for i in range(4))
    k, v, q, other = (part.T.unflatten(1, (2, 4)) for part in (k, v, q, other))
    found = []
    for asked, of, what, scale in (
        (unit(q), unit(k), v, layer.state_scales[0]),
        (unit(other), keys, values, layer.state_scales[1]),
    ):
        scores = torch.einsum("ihd,jhd->hij", asked, of) * scale.abs()[:, None, None]
        found.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), what).flatten(1))
    h = torch.cat(found, 1)
    out = h @ layer.state_out.weight.T
    if gate == "bias":
        g = layer.gate_bias.sigmoid()
        expected = g * flat + (1 - g) * out
    else:
        first, *second = (h @ layer.gate.weight.T + layer.gate.bias).split(8, 1)
        g = (first + 1).sigmoid()
        expected = g * flat + ((second[0] - 1).sigmoid() if second else 1 - g) * out
    got = layer.update(flat[None], layer.parts(flat[None]), keys[None], values[None])[0]
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_token_sees_the_window_before_it_and_not_itself():
    torch.manual_seed(0)
    layer, x = shaken(WindowLayer(8, 2, WINDOW, 1.0)), torch.randn(1, 20, 8, dtype=torch.float64)
    keys, values, _ = layer.columns(x, None)
    assert not keys[:, :WINDOW].any() and not values[:, :WINDOW].any()  # the zeros before a text
    x.requires_grad_()
    q = torch.randn(1, 20, 2, 4, dtype=torch.float64)
    y = layer.attend(q, *layer.columns(x, None))
    (gradient,) = torch.autograd.grad(y[0, 15].sum(), x)
    assert gradient[0].any(-1).nonzero().flatten().tolist() == list(range(9, 15))


def test_buckets_are_t5s():
    distances = torch.tensor([-3, 0, 1, 15, 16, 18, 19, 31, 32, 64, 127, 128, 1000])
    assert buckets(distances).tolist() == [0, 0, 1, 15, 16, 16, 17, 21, 21, 26, 31, 31, 31]


def test_third_layer_from_the_last_is_the_recurrent_one():
    for depth, place in ((1, 0), (3, 0), (5, 2)):
        kinds = [type(block.mixer) for block in make(depth).blocks]
        assert [kind is RecurrentLayer for kind in kinds] == [i == place for i in range(depth)]


def test_parameters_start_as_the_authors_have_them():
    torch.manual_seed(0)
    layer = BlockRecurrent(Size(32, 64, 1, 2), 12, states=32, gate="lstm").blocks[0].mixer
    spreads = {"query": 1 / 8, "key": 1 / 8, "state_project": 1 / 8, "state_out": 128**-0.5, "gate": 1280**-0.5}
    for name, spread in spreads.items():
        assert getattr(layer, name).weight.std().item() == pytest.approx(spread, rel=0.05), name
    assert layer.first.std().item() == pytest.approx(0.1, rel=0.1) and layer.place.std().item() == pytest.approx(
        1, rel=0.1
    )
    assert layer.gate.bias.std().item() == pytest.approx(0.1, rel=0.3)
    assert all((part == 1).all() for part in (layer.scale, layer.cross_scale, layer.state_scales))


@pytest.mark.parametrize("settings", [{"window": 0}, {"states": 0}, {"scale": 0.0}, {"gate": "none"}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="Block-Recurrent needs"):
        make(**settings)
