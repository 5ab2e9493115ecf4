"""The short convolution as PyTorch's own convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def chunked(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.short_convolution.recurrence` over the whole text at once; same shapes."""
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[2])
    seen = torch.cat([state.to(x.dtype), x], dim=1)
    # As a 2-d convolution over [1, t] with the channels last in memory: on a CPU three times as fast as conv1d.
    y = F.conv2d(seen.mT[:, :, None], weight.to(x.dtype)[:, :, None], bias, groups=len(weight))[:, :, 0].mT
    return y, seen[:, x.shape[1] :].clone()
