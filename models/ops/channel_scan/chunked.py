"""The channel scan in plain PyTorch: projections of all pieces at once, and Mamba's scan in its chunked form."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.selective_scan.chunked import streamed
from models.ops.short_convolution import chunked as convolution


def chunked(x: Tensor, forwards: BlockWeights, backwards: BlockWeights) -> Tensor:
    """`models.ops.channel_scan.recurrence.recurrence` in chunks; same shapes."""
    return both_ways(x, forwards, backwards, streamed)


def both_ways(x: Tensor, forwards: BlockWeights, backwards: BlockWeights, scan: Callable) -> Tensor:
    """The channel scan with a form of Mamba's scan."""
    return _one_way(x, forwards, scan) + _one_way(x.flip(1), backwards, scan).flip(1)


def _one_way(x: Tensor, block: BlockWeights, scan: Callable) -> Tensor:
    states = block.rates.shape[1]
    p, z = F.linear(x, block.project).chunk(2, -1)
    s = F.silu(convolution.chunked(p, block.taps[:, None], block.bias)[0])
    r, B, C = F.linear(s, block.select).split([block.step.shape[1], states, states], -1)
    delta = F.softplus(F.linear(r, block.step, block.step_bias))
    y = scan(s, delta, block.rates, B, C)[0] + block.skip * s
    return F.linear(y * F.silu(z), block.out)
