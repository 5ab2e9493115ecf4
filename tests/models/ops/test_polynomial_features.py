"""Polynomial features: the compiled form against plain PyTorch, whose meaning another test holds, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from models.ops.associative_memory.features import polynomial_features
from models.ops.associative_memory.features.plain import plain
from models.ops.providers import NotCovered

FACTORS = torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64)


def answers(form: str, x: torch.Tensor, factors: torch.Tensor = FACTORS) -> list[torch.Tensor]:
    """y, and the gradients of x and of the factors."""
    own = [x.clone().requires_grad_(), factors.to(x.dtype).requires_grad_()]
    y = polynomial_features(*own, provider=form)
    slope = torch.arange(y.numel(), dtype=torch.float64).cos().view_as(y).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * slope).sum(), own)]


@pytest.mark.parametrize("shape", [(2, 5, 3, 16), (7, 1), (1, 5), (70, 2, 9), (0, 4)])
def test_compiled_features_are_the_plain_ones_with_all_gradients(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for a, b in zip(answers("native", x), answers("chunked", x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    for a, b in zip(answers("native", x.float()), answers("chunked", x), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-5)


def test_half_precision_is_computed_in_float32_and_other_degrees_are_not_compiled():
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    y = polynomial_features(x.bfloat16(), FACTORS, provider="native")
    assert y.dtype == torch.bfloat16
    assert (y.double() - plain(x.bfloat16().double(), FACTORS)).abs().max() < 5e-3
    with pytest.raises(NotCovered, match="degree 2"):
        polynomial_features(x, torch.ones(4), provider="native")
    assert polynomial_features(x, torch.ones(4)).shape == (6, 1 + 8 + 36 + 120)
