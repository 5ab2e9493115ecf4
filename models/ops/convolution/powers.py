"""What reads and writes become over a chunk of L tokens: vectors times powers of a diagonal transition, with their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand


class Sides(torch.autograd.Function):
    """`apply(a, reads, writes, L)` -> reads over a chunk, writes into its last state, and a^L.

    Shapes: a complex [d, n]; reads p complex [k, d, n] -> [k, d, L, 2n], whose row t times a state, as pairs, is
    `2 Re p a^t h`, the first of them one power later; writes q complex [k, d, n] -> [k, d, L, 2n], whose row s is q a^(L-1-s);
    a^L [d, n]. Powers are products of powers, never quotients.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, reads: Tensor, writes: Tensor, length: int):
        raised = _raised(a, length)
        reach = a.new_empty(len(reads), *a.shape[:1], length, a.shape[1])
        enter = torch.empty_like(reach)
        falling = raised[:, :length].flip(1)
        for k in range(len(reads)):
            torch.mul(_later(raised, k, length), 2 * reads[k][:, None], out=reach[k])
            torch.mul(falling, writes[k][:, None], out=enter[k])
        ctx.save_for_backward(raised, reads, writes)
        return _as_pairs(reach.conj_physical_()), _as_pairs(enter), raised[:, length].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dreach: Tensor, denter: Tensor, dwhole: Tensor):
        raised, reads, writes = ctx.saved_tensors
        length = raised.shape[1] - 1
        draised, dreads, dwrites = torch.zeros_like(raised), torch.empty_like(reads), torch.empty_like(writes)
        draised[:, length] = dwhole
        for k in range(len(reads)):
            given = torch.view_as_complex(dreach[k].unflatten(-1, (-1, 2)).contiguous()).conj_physical()
            dreads[k] = 2 * torch.linalg.vecdot(_later(raised, k, length), given, dim=1)
            _later(draised, k, length).addcmul_(given, 2 * reads[k][:, None].conj_physical())
            given = torch.view_as_complex(denter[k].unflatten(-1, (-1, 2)).contiguous()).flip(1)
            dwrites[k] = torch.linalg.vecdot(raised[:, :length], given, dim=1)
            draised[:, :length].addcmul_(given, writes[k][:, None].conj_physical())
        counts = torch.arange(1, length + 1, dtype=raised.real.dtype, device=raised.device)
        da = torch.linalg.vecdot(raised[:, :length], draised[:, 1:] * counts[:, None], dim=1)
        return da, dreads, dwrites, None


def _later(raised: Tensor, k: int, length: int) -> Tensor:
    """a^1 .. a^L for the first read, which comes after a token's write, a^0 .. a^(L-1) for others, which come before it."""
    return raised[:, int(not k) : int(not k) + length]


def _raised(a: Tensor, length: int) -> Tensor:
    """a^0 .. a^L [d, L + 1, n], by doubling with factors squared in double precision: in single, a^L would lose L roundings."""
    found = a.new_empty(a.shape[0], length + 1, a.shape[1])
    found[:, 0], factor, count = 1, a.to(torch.complex128), 1
    while count <= length:
        more = min(count, length + 1 - count)
        torch.mul(found[:, :more], factor.to(a.dtype)[:, None], out=found[:, count : count + more])
        factor, count = factor.square(), count + more
    return found


def _as_pairs(h: Tensor) -> Tensor:
    """Complex [..., n] as real and imaginary parts in turns, [..., 2n]."""
    return torch.view_as_real(h).flatten(-2)
