"""Mamba's selective scan by PyTorch's own associative scan, forward and backward: a tree of products, as in the paper's kernel.

h_t = a_t h_{t-1} + b_t,   (a, b) o (a', b') = (a a', a' b + b'),   a = exp(Delta A), b = Delta B x
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan


def _after(first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return first[0] * then[0], then[0] * first[1] + then[1]


def selective(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *unused: Any) -> tuple[Tensor, Tensor]:
    """y [b, t, d] and the last state [b, d, n] of x and delta [b, t, d], A [d, n], B and C [b, t, n], from an empty state."""
    keep, write = (delta[..., None] * A).exp(), (delta * x)[..., None] * B[:, :, None]
    _, states = associative_scan(_after, (keep, write), 1, combine_mode="generic")
    return (states * C[:, :, None]).sum(-1), states[:, -1]
