"""Inverses of many small unit lower triangular matrices."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16  # solved directly; larger blocks are joined by matrix products, which are faster


def unit_lower_inverse(x: Tensor) -> Tensor:
    """`(I + X)^-1` for X [m, c, c], of which only what lies below the diagonal is read.

    Blocks on the diagonal are inverted, then joined in pairs: the block below is `-T_22 X_21 T_11`. As stable as
    forward substitution, where products of powers of X are not.
    """
    size = x.shape[-1]
    block = BLOCK
    while block < size:
        block *= 2
    if block != size and size > BLOCK:
        padded = x.new_zeros(len(x), block, block)
        padded[:, :size, :size] = x
        return unit_lower_inverse(padded)[:, :size, :size]
    step = min(size, BLOCK)
    corners = torch.stack([x[:, at : at + step, at : at + step] for at in range(0, size, step)], 1)
    eye = torch.eye(step, dtype=x.dtype, device=x.device).expand_as(corners)
    known = torch.linalg.solve_triangular(corners, eye, upper=False, unitriangular=True)
    while step < size:
        below = torch.stack([x[:, at + step : at + 2 * step, at : at + step] for at in range(0, size, 2 * step)], 1)
        first, second = known[:, ::2], known[:, 1::2]
        joined = x.new_zeros(*below.shape[:2], 2 * step, 2 * step)
        joined[..., :step, :step] = first
        joined[..., step:, step:] = second
        joined[..., step:, :step] = -(second @ below @ first)
        known, step = joined, 2 * step
    return known[:, 0]
