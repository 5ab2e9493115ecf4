"""Log-linear Mamba-2: how it begins, its layer against the definition by pairs of tokens, and what equal weights make of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from baselines.second_generation.log_linear_mamba2 import LogLinearMamba2
from baselines.second_generation.mamba2 import Mamba2


def test_layer_is_its_definition():
    torch.manual_seed(0)
    layer, time = LogLinearMamba2(8, 2, states=6, levels=6).double(), 21
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    u = torch.randn(2, time, 8, dtype=torch.float64)
    z, x, step, weights = layer.project(u).split([16, 28, 2, 12], -1)
    x, B, C = F.silu(layer.convolution(x)[0]).split([16, 6, 6], -1)
    x, weights = x.unflatten(-1, (2, 8)), F.softplus(layer.L * weights.unflatten(-1, (2, 6)))
    delta = F.softplus(step + layer.step_bias)
    log_forget = -layer.A_log.exp() * delta
    y = layer.D[:, None] * x
    for t in range(time):
        for s in range(t + 1):
            share = weights[:, t, :, (t ^ s).bit_length()] * log_forget[:, s + 1 : t + 1].sum(1).exp() * delta[:, s]
            y[:, t] += (share * (C[:, t] * B[:, s]).sum(-1, keepdim=True))[..., None] * x[:, s]
    expected = layer.out(layer.norm(y.flatten(2) * F.silu(z)))
    found, (_, buckets, count) = layer(u)
    assert (found - expected).norm() <= 1e-10 * expected.norm()
    assert buckets.shape == (2, 2, 5, 6, 8) and count == time


def test_equal_weights_make_it_mamba2():
    torch.manual_seed(0)
    layer, plain = LogLinearMamba2(8, 2, states=6, levels=9), Mamba2(8, 2, states=6)
    own = {name: part for name, part in layer.state_dict().items() if name != "L"}
    own["project.weight"] = own["project.weight"][: plain.project.out_features]
    plain.load_state_dict(own)
    with torch.no_grad():  # every level weighs softplus(0); the norm takes that back
        layer.project.weight[plain.project.out_features :] = 0
    x = torch.randn(2, 150, 8)
    layer.D.data.mul_(F.softplus(torch.tensor(0.0)))
    layer.norm.eps, plain.norm.eps = 0.0, 0.0
    torch.testing.assert_close(layer(x)[0], plain(x)[0], rtol=1e-4, atol=1e-5)


def test_initialisation_is_mamba2s_and_levels_weigh_alike():
    torch.manual_seed(0)
    layer = LogLinearMamba2(64, 8)
    assert torch.equal(layer.L, torch.ones(8, 15)) and torch.equal(layer.D, torch.ones(8))
    assert (1 <= layer.A_log.exp()).all() and (layer.A_log.exp() <= 16).all()
    steps = F.softplus(layer.step_bias)
    assert (steps >= 1e-4).all() and (steps <= 0.1 + 1e-6).all()


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="needs at least 2 levels, not 1"):
        LogLinearMamba2(8, 2, levels=1)
