"""Hawk: how it is drawn, its first token, its cuts, and gates that are wide open."""

from __future__ import annotations

import pytest
import torch

from baselines.second_generation.hawk import BoundedRoot, Hawk, decay_parameter


def test_weights_are_drawn_as_the_authors_draw_them():
    torch.manual_seed(0)
    layer = Hawk(96, 4, depth=6)
    spread = {
        "project.weight": 96**-0.5,
        "out.weight": (2 / (6 * 128)) ** 0.5,
        "convolution.weight": (0.01 / 4) ** 0.5,
        "gate": 32**-0.5,
    }
    found = dict(layer.named_parameters())
    for name, expected in spread.items():
        assert found[name].std().item() == pytest.approx(expected, rel=0.1), name
    for name in ("project.bias", "out.bias", "convolution.bias", "gate_bias"):
        assert not found[name].any()


def test_decays_are_drawn_with_their_squares_uniform():
    torch.manual_seed(0)
    squares = torch.exp(-2 * torch.nn.functional.softplus(decay_parameter(20_000).double()))
    assert 0.81 <= squares.min() < 0.812 and 0.996 < squares.max() <= 0.998002
    assert squares.mean().item() == pytest.approx((0.81 + 0.998001) / 2, rel=1e-3)


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_pieces_are_the_whole_and_only_the_first_token_counts_as_the_first(cut):
    torch.manual_seed(0)
    layer, x = Hawk(12, 2).double(), torch.randn(2, 23, 12, dtype=torch.float64)
    whole, _ = layer(x)
    ys, state = [], None
    for piece in x.split(cut, 1):
        y, state = layer(piece, state)
        ys.append(y)
    assert (torch.cat(ys, 1) - whole).norm() < 1e-12 * whole.norm()
    kept = layer(x[:, 1:], (torch.zeros(2, 3, 16).double(), torch.zeros(2, 16).double()))[0]
    assert (kept[:, 0] - layer(x[:, 1:])[0][:, 0]).norm() > 1e-3


def test_gates_that_are_wide_open_or_shut_give_finite_gradients():
    for bias in (-1e3, 1e3):
        torch.manual_seed(0)
        layer = Hawk(12, 2)
        with torch.no_grad():
            layer.gate_bias.fill_(bias)
        layer(torch.randn(2, 9, 12))[0].square().sum().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_root_has_the_roots_derivative_up_to_its_bound():
    x = torch.tensor([0.0, 1e-8, 0.25, 1.0], requires_grad=True)
    y = BoundedRoot.apply(x)
    y.sum().backward()
    assert torch.equal(y, x.sqrt()) and x.grad.tolist() == pytest.approx([1000, 1000, 1, 0.5])


def test_inner_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of its 4 heads"):
        Hawk(16, 4, inner=18)
