"""Attention beyond its training length: the scaled rotary positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.attention.transformer import Transformer

WIDTH, HEADS = 32, 2


def layer(**settings) -> Transformer:
    torch.manual_seed(0)
    return Transformer(WIDTH, HEADS, **settings)


def text(time: int) -> Tensor:
    return torch.randn(2, time, WIDTH, generator=torch.Generator().manual_seed(time))


@pytest.mark.parametrize("scaling", ["linear", "ntk"])
@torch.no_grad()
def test_training_knows_nothing_of_the_scaling(scaling: str):
    plain, scaled = layer(), layer(rotary_scaling=scaling, rotary_factor=4)
    x = text(20)
    assert torch.equal(plain(x)[0], scaled(x)[0])
    assert torch.equal(plain.eval()(x)[0], plain.train()(x)[0])
    assert (scaled.eval()(x)[0] - plain(x)[0]).abs().max() > 1e-3
    unscaled = layer(rotary_scaling=scaling, rotary_factor=1).eval()
    assert torch.equal(unscaled(x)[0], plain(x)[0])


@torch.no_grad()
def test_linear_scaling_puts_every_place_nearer():
    plain, scaled = layer().eval(), layer(rotary_scaling="linear", rotary_factor=4).eval()
    x = text(1)
    for place in (0, 3, 50):
        for near, far in zip(plain.project(x, place), scaled.project(x, 4 * place), strict=True):
            assert torch.allclose(near, far, atol=1e-6)


def test_ntk_leaves_the_first_pair_and_scales_the_last_as_linear_does():
    ntk, linear = (layer(rotary_scaling=way, rotary_factor=8)._frequency(16, "cpu") for way in ("ntk", "linear"))
    plain = 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    assert ntk[0] == plain[0] == 1
    assert ntk[-1].item() == pytest.approx(linear[-1].item()) == pytest.approx(plain[-1].item() / 8)
    assert (ntk[1:] < plain[1:]).all() and (ntk[:-1] > linear[:-1]).all()


@pytest.mark.parametrize("scaling", ["linear", "ntk"])
@torch.no_grad()
def test_any_split_gives_the_whole_under_scaling(scaling: str):
    scaled = layer(rotary_scaling=scaling, rotary_factor=8).eval()
    x = text(60)
    whole, _ = scaled(x)
    for size in (1, 7, 37):
        state, ys = None, []
        for piece in x.split(size, 1):
            y, state = scaled(piece, state)
            ys.append(y)
        assert torch.allclose(torch.cat(ys, 1), whole, atol=1e-5)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"rotary_scaling": "yarn"}, "none, linear or ntk"),
        ({"rotary_factor": 2}, "1 without rotary_scaling"),
        ({"rotary_scaling": "ntk", "rotary_factor": 0.5}, "at least 1"),
    ],
)
def test_impossible_scalings_say_what_to_do(settings: dict, says: str):
    with pytest.raises(ValueError, match=says):
        layer(**settings)
