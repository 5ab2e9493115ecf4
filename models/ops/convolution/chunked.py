"""A linear time-invariant system in chunks: Toeplitz blocks inside a chunk, a short loop over the chunks' states.

    Y = inside X + reach S_i,   S_{i+1} = keep S_i + enter^T X           `inside`, `reach`, `enter`, `keep`: see `system`
    dX = inside^T dY + enter dS_{i+1},   dS_i = reach^T dY + keep^T dS_{i+1}

All rows and chunks stand side by side, so that a channel's matrices meet one matrix of tokens; the text's rest that fills no
chunk is a chunk of its own length. The backward pass is written out; that of the matrices, which are few, is torch's own.

On a CPU the products take about 3/5 of the time of a convolution by FFT over twice the text, at 128 tokens as at 4,096 (256
channels of 32 numbers, forward and backward, the last state included), and are exact at any cut.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.convolution.carry import as_complex, carried
from models.ops.convolution.recurrence import recurrence
from models.ops.convolution.system import system

CHUNK = 32
STEPS = 4  # so few tokens are faster one by one


def chunked(
    x: Tensor,
    forget: Tensor,
    write: Tensor,
    read: Tensor,
    erase: tuple[Tensor, Tensor] | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.convolution.recurrence.recurrence` in chunks; same shapes."""
    batch, time, _ = x.shape
    if time <= STEPS or not batch:
        return recurrence(x, forget, write, read, erase, state)
    length = min(CHUNK, time)
    whole = time // length * length
    with torch.autocast(x.device.type, enabled=False):
        kind = forget.real.dtype
        if state is None:
            state = forget.real.new_zeros(batch, *forget.shape, 2)
        S = state.to(kind).transpose(0, 1).flatten(2).contiguous()  # [d, b, 2n]
        tokens = turned(x[:, :whole].to(kind).flatten(0, 1))
        y, S = _Chunks.apply(tokens, *system(forget, write, read, erase, length), S)
        y = turned(y).unflatten(0, (batch, whole)).to(x.dtype)
        state = S.transpose(0, 1).unflatten(2, (-1, 2)).contiguous()
    if whole == time:
        return y, state
    rest, state = chunked(x[:, whole:], forget, write, read, erase, state)
    return torch.cat([y, rest], 1), state


def turned(x: Tensor) -> Tensor:
    """The transpose of a matrix, contiguous: as a matrix torch turns it in blocks, as more dimensions number by number."""
    return x.t().contiguous()


class _Chunks(torch.autograd.Function):
    """`apply(x, inside, reach, enter, keep, state)` -> y and the last state.

    Shapes: x, y [d, b * m * L] for m chunks of L tokens in b rows; state [d, b, 2n]; the matrices as in `System`. The states
    before the chunks take the place of what the chunks write: on a CPU a fresh tensor of that size costs as much as a product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, inside: Tensor, reach: Tensor, enter: Tensor, keep: Tensor, state: Tensor):
        tokens = x.unflatten(1, (-1, inside.shape[-1]))  # [d, b m, L]
        starts = tokens @ enter
        by_chunk = starts.unflatten(1, (state.shape[1], -1))
        last = carried(by_chunk, keep, state, range(by_chunk.shape[2]))
        y = (tokens @ inside.mT).baddbmm_(starts, reach.mT)
        ctx.save_for_backward(tokens, inside, reach, enter, keep, starts)
        ctx.rows = state.shape[1]
        return y.flatten(1), last

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        tokens, inside, reach, enter, keep, starts = ctx.saved_tensors
        dy = dy.contiguous().view(tokens.shape)
        dends = dy @ reach
        by_chunk, back = dends.unflatten(1, (ctx.rows, -1)), keep.conj() if keep.is_complex() else keep.mT
        dstate = carried(by_chunk, back, dlast.contiguous(), range(by_chunk.shape[2] - 1, -1, -1))
        dx = (dy @ inside).baddbmm_(dends, enter.mT).flatten(1)
        if keep.is_complex():
            dkeep = torch.linalg.vecdot(as_complex(starts), as_complex(dends), dim=1)
        else:
            dkeep = dends.mT @ starts
        return dx, dy.mT @ tokens, dy.mT @ starts, tokens.mT @ dends, dkeep, dstate
