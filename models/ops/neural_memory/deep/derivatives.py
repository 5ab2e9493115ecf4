"""First and second derivatives inside a deep memory: of its activation, and of the loss behind a residual memory's norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.ops.neural_memory.recurrence import NORM_EPSILON, Rule


def residual_error(z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Negative gradient of `1/2 |k + LN(z) - v|^2` with respect to z: LN's backward of `v - k - LN(z)`."""
    centred = z - z.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    n = centred * scale
    up = v - k - n
    return (up - up.mean(-1, keepdim=True) - n * (up * n).mean(-1, keepdim=True)) * scale


def times_derivative(x: Tensor, z: Tensor, rule: Rule) -> Tensor:
    """`x o s'(z)`, in one kernel."""
    if rule.activation == "gelu":
        return torch.ops.aten.gelu_backward(x, z)
    return torch.ops.aten.silu_backward(x, z)


def second_derivative(z: Tensor, rule: Rule) -> Tensor:
    """`s''(z)`."""
    if rule.activation == "gelu":
        square = z * z
        return torch.exp(-0.5 * square).mul_(square.neg_().add_(2)).mul_(1 / math.sqrt(2 * math.pi))
    below = torch.sigmoid(z)
    return below * (1 - below) * (2 + z * (1 - 2 * below))
