"""The short convolution as PyTorch's own convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand


def chunked(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The reference recurrence over the whole text at once; same shapes. y is in autocast's dtype, if that is on."""
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[2])
    if not x.shape[1]:
        return x, state.to(x.dtype, copy=True)
    seen = torch.cat([state.to(x.dtype), x], dim=1)
    kind = computed_in(x)
    own = seen.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    y = (_Convolution.apply if x.device.type == "cpu" and torch.is_grad_enabled() else _convolved)(*own)
    return y, seen[:, x.shape[1] :].clone()


def computed_in(x: Tensor) -> torch.dtype:
    """What torch's own convolution would compute in; autocast leaves float64 alone."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[b, t + kernel - 1, d] -> [b, t, d], each channel with its own weights [d, 1, kernel].

    As a 2-d convolution over [1, t] with the channels last in memory: on a CPU three times as fast as conv1d.
    """
    return F.conv2d(x.mT[:, :, None], weight[:, :, None], bias, groups=weight.shape[0])[:, :, 0].mT


class _Convolution(torch.autograd.Function):
    """`_convolved` with its backward pass as another convolution and `kernel` sums: torch's own takes 3 times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight, bias)

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        time, kernel = dy.shape[1], weight.shape[-1]
        dy = dy.contiguous()
        wide = torch.float64 if dy.dtype == torch.float64 else torch.float32
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _convolved(F.pad(dy, (0, 0, kernel - 1, kernel - 1)), weight.flip(-1), None)
        if ctx.needs_input_grad[1]:
            sums = [(dy * x[:, at : at + time]).sum((0, 1), dtype=wide) for at in range(kernel)]
            dw = torch.stack(sums, -1)[:, None].to(weight.dtype)
        if ctx.needs_input_grad[2]:
            db = dy.sum((0, 1), dtype=wide).to(dy.dtype)
        return dx, dw, db
