"""Attention that is exact inside a block and a kernel of sketches across, all blocks of a piece at once; backward by hand.

With P[t,s] = q_t . k_s inside a block, L the lower triangle, and S the sums of the blocks before it:

    Y = (P^4 L) V + phi(G_q) S,    S' = S + phi(G_k)^T V,    dP = 4 P^3 (dY V^T) L

A piece that begins inside a block first goes on with that block, whose keys the state holds; then its own blocks stand in line.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.kernel_attention.block_recurrence import PLUS, State, begun, ended
from models.ops.kernel_attention.features import expanded, expanded_back
from models.ops.kernel_attention.sums import quotient, wide_kind, widened
from models.ops.scan.chunked import cut_heads, joined
from models.ops.scan.decay import plus
from models.ops.scan.hebbian import carry, carry_back


def chunked(
    q: Tensor, k: Tensor, sketch_q: Tensor, sketch_k: Tensor, v: Tensor, *, block: int, state: State | None = None
) -> tuple[Tensor, State]:
    """`models.ops.kernel_attention.block_recurrence.recurrence` by whole blocks; same shapes."""
    dtype, kind = v.dtype, wide_kind(q, k, sketch_q, sketch_k, v)
    with torch.autocast(q.device.type, enabled=False):
        q, k, sketch_q, sketch_k, v = (x.to(kind) for x in (q, k, sketch_q, sketch_k, widened(v, True)))
        sums, *opened, tokens = begun(sketch_q, k, sketch_k, v, state)
        seen = [torch.cat(pair, 1) for pair in zip(opened, (k, sketch_k, v), strict=True)]
        past, time = opened[0].shape[1], q.shape[1]
        first = min(time, block - past) if past else 0
        ys = []
        for rows, columns in ((slice(first), slice(past + first)), (slice(first, time), slice(past + first, None))):
            if rows.stop > (rows.start or 0):
                y, sums = _blocks(q[:, rows], sketch_q[:, rows], *(x[:, columns] for x in seen), block, sums)
                ys.append(y)
        y = quotient(torch.cat(ys, 1), PLUS) if ys else v[..., :-1]
        start = (past + time) // block * block
        return y.to(dtype), ended(sums, *(x[:, start:] for x in seen), tokens + time)


def _blocks(
    q: Tensor, sketch_q: Tensor, k: Tensor, sketch_k: Tensor, v: Tensor, block: int, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Reads [b, rows, h, v] of the last rows of blocks that begin with `k`, and the sums with all complete blocks in them."""
    (batch, rows, heads), columns = q.shape[:3], k.shape[1]
    before = columns - rows  # keys of the first block whose queries have been answered
    size = min(block, columns)
    queries = (cut_heads(x, size - before) for x in (q, sketch_q))
    keys = (cut_heads(x, size) for x in (k, sketch_k, v))
    y, sums = _Blocks.apply(*queries, *keys, sums.flatten(0, 1), columns // block)
    return joined(y, batch, rows), sums.unflatten(0, (batch, heads))


class _Blocks(torch.autograd.Function):
    """`apply(q, sketch_q, k, sketch_k, v, sums, complete)` -> y [n, m, c, v] and the sums behind `complete` of n blocks.

    Shapes: q, sketch_q [n, m, rows, .]; k, sketch_k, v [n, m, c, .]: the rows are the last of c; sums [m, F, v].
    """

    @staticmethod
    def forward(ctx: Any, q, sketch_q, k, sketch_k, v, sums, complete: int):
        scores = q @ k.mT
        before = k.shape[2] - q.shape[2]
        weights = scores.square().square_().tril_(before)
        states = carry(expanded(sketch_k, "square").mT @ v, None, sums)
        y = plus(weights @ v, expanded(sketch_q, "square"), states[:-1])
        ctx.save_for_backward(q, sketch_q, k, sketch_k, v, scores, states)
        ctx.complete, ctx.before = complete, before
        return y, states[complete].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        q, sketch_q, k, sketch_k, v, scores, states = ctx.saved_tensors
        reads = expanded(sketch_q, "square").mT @ dy
        if ctx.complete < len(reads):  # an open block's sums are nobody's
            reads[ctx.complete] += dlast
            dlast = torch.zeros_like(dlast)
        dstates = carry_back(reads, None, dlast)
        cubes, squares = scores.square().mul_(scores), scores.square()
        weights = squares.square_().tril_(ctx.before)
        dv = plus(weights.mT @ dy, expanded(sketch_k, "square"), dstates[1:])
        dscores = (dy @ v.mT).mul_(cubes).mul_(4).tril_(ctx.before)
        dsketch_q = expanded_back(sketch_q, "square", dy @ states[:-1].mT)
        dsketch_k = expanded_back(sketch_k, "square", v @ dstates[1:].mT)
        return dscores @ k, dsketch_q, dscores.mT @ q, dsketch_k, dv, dstates[0], None
