"""What every backward pass by hand is wrapped in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def by_hand(backward: Callable) -> Callable:
    """Decorates `backward(ctx, *gradients)` of an autograd Function: differentiable once, `in_own_dtype`."""
    return once_differentiable(in_own_dtype(backward))


def in_own_dtype(backward: Callable) -> Callable:
    """Decorates `backward(ctx, *gradients)` of an autograd Function: computed in its tensors' own dtype.

    A user may call `loss.backward()` under autocast, which would turn its products into half precision against sums in
    float32; the forward pass has autocast switched off, and so must the backward pass.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Tensor | None) -> Any:
        device = next(x.device.type for x in gradients if x is not None)
        with torch.autocast(device, enabled=False):
            return backward(ctx, *gradients)

    return run
