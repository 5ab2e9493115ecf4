"""MesaNet: the layer against its equations, every system solved by itself, and the library's initialisation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from baselines.third_generation.mesanet import MesaNet


def test_layer_is_its_equations():
    torch.manual_seed(0)
    layer, x = MesaNet(12, 2).double(), torch.randn(1, 20, 12, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    y = torch.cat([(a := layer(x[:, :7]))[0], layer(x[:, 7:], a[1])[0]], 1)
    H = G = torch.zeros(2, 6, 6, dtype=torch.float64)
    ridge = torch.diag_embed(F.softplus(layer.ridge) + 0.25)
    projected = F.pad((x @ layer.qk.weight.T)[0], (0, 0, 3, 0))
    for t in range(20):
        qk = (projected[t : t + 4] * layer.convolution.weight[:, 0].T).sum(0)
        qk = (qk * torch.sigmoid(qk)).view(2, 2, 6)
        q, k = qk / (qk.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        v = (layer.value.weight @ x[0, t]).view(2, 6)
        forget, rate = (torch.sigmoid(part(x[0, t])).view(2, 1, 1) for part in (layer.forget, layer.rate))
        H = forget * H + rate * k[:, :, None] * k[:, None]
        G = forget * G + rate * k[:, :, None] * v[:, None]
        read = (G.mT @ torch.linalg.solve(H + ridge, q)[..., None])[..., 0]
        read = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
        torch.testing.assert_close(y[0, t], layer.out.weight @ read.flatten(), rtol=1e-10, atol=1e-10)


def test_initial_values_are_the_librarys():
    layer = MesaNet(64, 4)
    torch.testing.assert_close(F.softplus(layer.ridge) + 0.25, torch.ones(4, 16))
    assert layer.forget.bias is not None and layer.rate.bias is not None and layer.value.bias is None
    assert layer.convolution.weight.shape == (128, 1, 4) and layer.convolution.bias is None


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="inner .10. to be a multiple of heads .4."):
        MesaNet(8, 4, inner=10)
    with pytest.raises(ValueError, match="steps >= 1"):
        MesaNet(8, 4, steps=0)
