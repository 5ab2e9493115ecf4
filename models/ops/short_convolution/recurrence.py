"""The reference recurrence of the short convolution: causal, depthwise, over the last few inputs of each channel.

    y_t = sum_j w_j x_{t-j} + bias,   j = 0 .. kernel - 1

Letters: b batch, t time, d channels. What a piece of text leaves for the next is its last `kernel - 1` inputs. The fast forms
beside it have this signature and are held to this loop.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y [b, t, d] and the last `kernel - 1` inputs [b, kernel - 1, d].

    Shapes: x [b, t, d]; weight [d, 1, kernel], the newest input's last; bias [d]; state [b, kernel - 1, d], None for zeros.
    """
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[2])
    state, ys = state.to(x.dtype), []
    for t in range(x.shape[1]):
        seen = torch.cat([state, x[:, t : t + 1]], dim=1)
        y = torch.einsum("bjd,dj->bd", seen, weight[:, 0])
        ys.append(y if bias is None else y + bias)
        state = seen[:, 1:]
    return torch.stack(ys, dim=1) if ys else x.new_empty(x.shape), state.clone()
