"""Rates up to 2: what a key knew is turned round, and twice the same key restores it, so that a sign can count to two."""

from __future__ import annotations

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry

WIDTH, HEADS = 16, 2
NAMES = ["deltanet", "gated-deltanet", "kda", "gated-deltanet-2", "deltaproduct", "gated-deltaproduct"]


def mixer(name: str, negative: bool | None) -> torch.nn.Module:
    """A layer that never forgets, has the highest rate that it can have, and writes nothing."""
    torch.manual_seed(0)
    settings = {} if negative is None else {"negative_eigenvalues": negative}
    if "product" in name:
        settings["steps"] = 1
    layer = registry.entry(name).cls(WIDTH, HEADS, **settings).double()
    with torch.no_grad():
        layer.qkv.weight *= 30  # long keys, which the norm's epsilon does not shorten
        layer.qkv.weight[-layer.out.in_features :] = 0
        for rate in ("rate", "erase"):
            if hasattr(layer, rate):
                getattr(layer, rate).weight.fill_(100.0)
        if hasattr(layer, "A_log"):
            layer.A_log.fill_(-torch.inf)
    return layer


def transitions(layer: torch.nn.Module, count: int) -> torch.Tensor:
    """Eigenvalues [h, k] of what `count` equal tokens make of a state, sorted."""
    x = torch.ones(1, 6, WIDTH, dtype=torch.float64)
    _, (tail, matrix) = layer(x, None)  # the convolution has seen nothing else
    matrix = torch.randn(*matrix.shape[:3], matrix.shape[2], dtype=torch.float64)
    wide = torch.nn.functional.pad(matrix, (0, layer.norm.shape[0] - matrix.shape[3]))
    _, (_, after) = layer(x[:, :count], (tail, wide))
    transition = after[0, :, :, : matrix.shape[3]] @ torch.linalg.inv(matrix[0])
    return torch.linalg.eigvals(transition).real.sort(-1).values


@pytest.mark.parametrize("name", NAMES)
def test_a_sign_is_turned_by_one_token_and_restored_by_two(name):
    layer = mixer(name, True)
    once, twice = transitions(layer, 1), transitions(layer, 2)
    torch.testing.assert_close(once[:, 0], torch.full_like(once[:, 0], -1.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(once[:, 1:], torch.ones_like(once[:, 1:]), rtol=0, atol=1e-6)
    torch.testing.assert_close(twice, torch.ones_like(twice), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_without_it_no_eigenvalue_is_below_zero(name):
    once = transitions(mixer(name, False), 1)
    torch.testing.assert_close(once[:, 0], torch.zeros_like(once[:, 0]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_only_deltaproduct_has_it_by_default(name):
    assert mixer(name, None).highest_rate == (2.0 if "product" in name else 1.0)
