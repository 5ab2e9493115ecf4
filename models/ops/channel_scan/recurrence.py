"""The law of the channel scan: MambaMixer's Mamba block over the pieces of each token's channels, piece by piece.

    p_t, z_t = W_in x_t;   s_t = silu(bias + sum_k w_k p_{t-K+1+k});   r_t, B_t, C_t = W_x s_t
    Delta_t = softplus(W_2 r_t + bias_2);   h_t = exp(Delta_t A) h_{t-1} + Delta_t s_t B_t
    y_t = W_out ((C_t h_t + D s_t) * silu(z_t))

(Gu and Dao 2023, arXiv 2312.00752, with its block; both ways over channels as Behrouz et al. 2024, arXiv 2403.19888.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class BlockWeights(NamedTuple):
    """What a block learns: w the width of a piece, d channels, N states, r rank, K the convolution's kernel."""

    project: Tensor  # [2 d, w]
    taps: Tensor  # [d, K]
    bias: Tensor  # [d]
    select: Tensor  # [r + 2 N, d]
    step: Tensor  # [d, r]
    step_bias: Tensor  # [d]
    rates: Tensor  # A [d, N], negative
    skip: Tensor  # D [d]
    out: Tensor  # [w, d]


def recurrence(x: Tensor, forwards: BlockWeights, backwards: BlockWeights) -> Tensor:
    """What both ways make of each token's pieces x [rows, pieces, w], summed: [rows, pieces, w]."""
    return _one_way(x, forwards) + _one_way(x.flip(1), backwards).flip(1)


def _one_way(x: Tensor, block: BlockWeights) -> Tensor:
    channels, kernel = block.taps.shape
    states, ys = block.rates.shape[1], []
    seen = [x.new_zeros(len(x), channels)] * kernel
    h = x.new_zeros(len(x), channels, states)
    for piece in x.unbind(1):
        p, z = (piece @ block.project.T).chunk(2, -1)
        seen = [*seen[1:], p]
        s = F.silu(block.bias + sum(block.taps[:, k] * seen[k] for k in range(kernel)))
        r, B, C = (s @ block.select.T).split([block.step.shape[1], states, states], -1)
        delta = F.softplus(r @ block.step.T + block.step_bias)
        h = torch.exp(delta[..., None] * block.rates) * h + (delta * s)[..., None] * B[:, None]
        y = (h * C[:, None]).sum(-1) + block.skip * s
        ys.append((y * F.silu(z)) @ block.out.T)
    return torch.stack(ys, 1) if ys else x
