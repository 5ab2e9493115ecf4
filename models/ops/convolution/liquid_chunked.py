"""A liquid system in chunks: since all degrees share one diagonal a, a product of inputs weighs by its oldest one's age alone.

With e_k(s, t) the k-th elementary symmetric polynomial of x_{s+1} .. x_t, and h the states before the chunk (t from 0):

    hp_t = sum_s b^p a^(t-s-p+1) x_s e_{p-1}(s, t) + sum_k b^k a^(t+1-k) e_k(-1, t) h(p-k)

The polynomials part into what depends on t and what depends on s: sum_k e_k(s, t) z^k = F_t(z) / F_s(z) with F_t(z) = sum_k
E_k(t) z^k, the product of all 1 + x z up to t, and 1 / F_s(z) = sum_j G_j(s) z^j is a series without a division. So every degree
is the Toeplitz block of a convolution, between products with E and G:

    y_t = sum_k E_k(t) ( sum_j inside_{j+k+1} (G_j x) + reach_k (h1 + .. + h(P-k)) )_t

They are taken from the chunk's start, so that they stay small. The backward pass is torch's own but for the loop over chunks.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.convolution.carry import as_complex, carried
from models.ops.convolution.chunked import CHUNK, STEPS, turned
from models.ops.convolution.liquid_recurrence import recurrence
from models.ops.convolution.powers import Sides
from models.ops.convolution.system import as_reads, toeplitz


def chunked(
    x: Tensor, forget: Tensor, write: Tensor, read: Tensor, degree: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`models.ops.convolution.liquid_recurrence.recurrence` in chunks; same shapes; at most `STEPS` degrees."""
    batch, time, _ = x.shape
    if time <= STEPS or not batch:
        return recurrence(x, forget, write, read, degree, state)
    length = min(CHUNK, time)
    whole = time // length * length
    with torch.autocast(x.device.type, enabled=False):
        kind = forget.real.dtype
        if state is None:
            state = forget.real.new_zeros(batch, degree, *forget.shape, 2)
        first = state.to(kind).permute(1, 2, 0, 3, 4).flatten(3).contiguous()  # [P, d, b, 2n]
        tokens = turned(x[:, :whole].to(kind).flatten(0, 1)).unflatten(1, (-1, length))  # [d, b m, L]
        y, last = _chunks(tokens, forget, write, read, first)
        y = turned(y.flatten(1)).unflatten(0, (batch, whole)).to(x.dtype)
        state = last.permute(2, 0, 1, 3).unflatten(3, (-1, 2)).contiguous()
    if whole == time:
        return y, state
    rest, state = chunked(x[:, whole:], forget, write, read, degree, state)
    return torch.cat([y, rest], 1), state


def _chunks(x: Tensor, forget: Tensor, write: Tensor, read: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """x [d, b m, L] and first [P, d, b, 2n] -> y [d, b m, L] and the states after the last of m chunks."""
    degree, length = len(first), x.shape[2]
    writes = torch.stack(list(accumulate([write] * degree, torch.mul)))  # b, b^2, ..
    reads = torch.cat([read[None], read * writes[:-1]])
    reach, enter, whole = Sides.apply(forget, reads, writes, length)
    carries = [as_complex(enter[k, :, k]) for k in range(degree - 1)]  # b^k a^(L-k), k from 1
    enter = [F.pad(enter[p, :, p:], (0, 0, 0, p)) for p in range(degree)]
    reach = [reach[0], *(F.pad(reach[k, :, : length - k + 1], (0, 0, k - 1, 0)) for k in range(1, degree))]
    inside = [toeplitz((part @ as_reads(read)[..., None])[..., 0]) for part in enter]
    sums, inverse = _prefixes(x, degree)
    given = [x * part for part in inverse]
    starts, last = _states(given, sums, enter, whole, carries, first)
    y = 0
    for k in range(degree):
        met = sum(starts[1 : degree - k], starts[0]) @ reach[k].mT
        for j in range(degree - k):
            met = torch.baddbmm(met, given[j], inside[j + k].mT)
        y = y + sums[k] * met
    return y, last


def _prefixes(x: Tensor, degree: int) -> tuple[list[Tensor], list[Tensor]]:
    """E_0 .. E_{P-1} and G_0 .. G_{P-1} of every place in its chunk."""
    sums, inverse = [torch.ones_like(x)], [torch.ones_like(x)]
    for k in range(1, degree):
        before = sums[-1] if k == 1 else F.pad(sums[-1], (1, -1))
        sums.append((x * before).cumsum(-1))
        inverse.append(-sum(sums[i] * inverse[k - i] for i in range(1, k + 1)))
    return sums, inverse


def _states(
    given: list[Tensor], sums: list[Tensor], enter: list[Tensor], whole: Tensor, carries: list[Tensor], first: Tensor
) -> tuple[list[Tensor], Tensor]:
    """States of every degree before each chunk [d, b m, 2n], and those after the last [P, d, b, 2n]."""
    starts, last, rows = [], [], first.shape[2]
    ends = [part[..., -1:] for part in sums]
    for p in range(len(first)):
        writes = sum(ends[p - j] * given[j] for j in range(p + 1)) @ enter[p]
        for k in range(1, p + 1):
            turn = carries[k - 1][:, None] * as_complex(starts[p - k])
            writes = writes + ends[k] * torch.view_as_real(turn).flatten(-2)
        before, after = _Carry.apply(writes.unflatten(1, (rows, -1)), whole, first[p])
        starts.append(before.flatten(1, 2))
        last.append(after)
    return starts, torch.stack(last)


class _Carry(torch.autograd.Function):
    """`apply(writes [d, b, m, 2n], keep [d, n], first [d, b, 2n])` -> the states before each chunk, and after the last."""

    @staticmethod
    def forward(ctx: Any, writes: Tensor, keep: Tensor, first: Tensor):
        starts = writes.clone()
        last = carried(starts, keep, first.contiguous(), range(writes.shape[2]))
        ctx.save_for_backward(starts, keep)
        return starts, last.clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dstarts: Tensor, dlast: Tensor):
        starts, keep = ctx.saved_tensors
        dwrites = dstarts.clone(memory_format=torch.contiguous_format)
        dfirst = carried(dwrites, keep.conj(), dlast.contiguous(), range(dwrites.shape[2] - 1, -1, -1))
        dkeep = torch.linalg.vecdot(as_complex(starts.flatten(1, 2)), as_complex(dwrites.flatten(1, 2)), dim=1)
        return dwrites, dkeep, dfirst
