"""The matrix memory's loop over its blocks, with its reads and its backward loop written out.

Z = [M; S], the memory above the surprise, stands before a block; K, V, Q are its tokens. With the coefficients A and P of
`gate_table.py`, and e = v - k M_a what a token finds wrong at its anchor,

    (I + X) E = V - A[a,M] K M - A[a,S] K S,      X[t,s] = A[a(t),s] (k_t . k_s)          X = 0 with one anchor per block
    O = A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E
    M <- A[C,M] M + A[C,S] S + (A[C,.] o K)^T E,   S <- P[C,S] S + (P[C,.] o K)^T E

Only Z and E need one block after another. The rest is computed for a slab of blocks at a time, small enough for a core's cache,
and most of it a second time in the backward loop, which keeps nothing but Z, E and (I + X)^-1. Blocks n come first, then groups
g (batch times heads).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops.autograd import by_hand

SLAB = 2**16  # numbers of one kind, such as the keys, that a slab of blocks holds


class Layout(NamedTuple):
    """How texts lie in blocks: `size` tokens a block; `chunk` tokens an anchor; whether a token reads before it writes."""

    size: int
    chunk: int
    exclusive: bool

    def cut(self, x: Tensor) -> Tensor:
        """A text [b, n * size, h, ...] seen as [n, b, h, size, ...]."""
        return x.unflatten(1, (-1, self.size)).movedim((1, 3), (0, 2))

    def slabs(self, x: Tensor) -> list[slice]:
        """The blocks of a text [b, t, h, d] that are computed together."""
        blocks = x.shape[1] // self.size
        step = max(1, SLAB * blocks // x.numel())
        return [slice(start, min(start + step, blocks)) for start in range(0, blocks, step)]

    @property
    def reads(self) -> slice:
        """The table's rows that tokens read with."""
        return slice(0, -1) if self.exclusive else slice(1, None)


def blocks(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, ends: Tensor, keep: Tensor | None, state: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:
    """What every token reads, [b, t, h, out], and Z after the last block.

    Shapes: q, k [b, t, h, in], v [b, t, h, out], t in whole blocks; table [n, g, size + 1, size + 2]; ends [n, g, 2, size + 2];
    keep [n, g, size] where gradients are taken at the decayed memory; state Z [g, 2 in, out].
    """
    return _Blocks.apply(q, k, v, table, ends, keep, state, layout)


class _BlockSlab:
    """What is computed from the tokens and coefficients of some blocks alone."""

    def __init__(
        self, part: slice, q: Tensor, k: Tensor, table: Tensor, ends: Tensor, keep: Tensor | None, layout: Layout
    ):
        self.part = part
        self.q, self.k = tokens_of(q, part, layout), tokens_of(k, part, layout)
        reads = table[part, :, layout.reads]
        self.before, self.within = reads[..., :2], reads[..., 2:]
        self.shares = ends[part, :, :, 2:].mT.contiguous()  # or products with it would not be
        self.mix = ends[part, :, :, :2, None, None]  # what is kept of M and S in M and S
        self.keep = None if keep is None else keep[part, ..., None]
        self.anchored = None
        if layout.chunk < layout.size:
            rows = table[part, :, : -1 : layout.chunk]
            if layout.chunk > 1:
                rows = rows.repeat_interleave(layout.chunk, 2)[:, :, : layout.size]
            self.anchored = rows if keep is None else rows * self.keep
            self.rows = rows
            self.known = spread(self.k, self.anchored[..., :2])
        else:
            self.known = self.k if keep is None else self.k * self.keep
        self.writes = spread(self.k, self.shares)
        self.reading = spread(self.q, self.before)

    def kept(self) -> list[tuple[Tensor, ...]]:
        """Per block, [g, 1, 1]: what M keeps of M, what it takes of S, and what S keeps of S."""
        return [self.mix[:, :, row, column].unbind() for row, column in ((0, 0), (0, 1), (1, 1))]


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        table, ends, keep, state, layout = rest
        count, groups = table.shape[:2]
        starts = state.new_empty(count + 1, *state.shape)
        starts[0] = state
        errors = v.new_empty(count, groups, layout.size, v.shape[-1])
        inverse = None if layout.chunk >= layout.size else v.new_empty(count, groups, layout.size, layout.size)
        y = torch.empty_like(v, memory_format=torch.contiguous_format)
        y_blocks = layout.cut(y)
        for part in layout.slabs(q):
            slab = _BlockSlab(part, q, k, table, ends, keep, layout)
            if inverse is not None:
                x = (slab.k @ slab.k.mT).mul_(slab.anchored[..., 2:])
                one = torch.eye(layout.size, dtype=x.dtype, device=x.device).expand_as(x)
                inverse[part] = torch.linalg.solve_triangular(x, one, upper=False, unitriangular=True)
            solve = None if inverse is None else inverse[part]
            _chunk_loop(slab, tokens_of(v, part, layout), solve, errors[part], starts[part.start : part.stop + 1])
            scores = (slab.q @ slab.k.mT).mul_(slab.within)
            read = product(slab.reading, starts[part])
            read.flatten(0, 1).baddbmm_(scores.flatten(0, 1), errors[part].flatten(0, 1))
            y_blocks[part].copy_(read.unflatten(1, y_blocks.shape[1:3]))
        ctx.save_for_backward(q, k, table, ends, keep, errors, starts, inverse)
        ctx.layout = layout
        return y, starts[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        q, k, table, ends, keep, errors, starts, inverse = ctx.saved_tensors
        layout = ctx.layout
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(dy)
        d_table, d_ends = torch.zeros_like(table), torch.zeros_like(ends)
        d_keep = None if keep is None else torch.empty_like(keep)
        outputs = [layout.cut(d) for d in (d_q, d_k, d_v)]
        dz = d_state
        for part in reversed(layout.slabs(q)):
            slab = _BlockSlab(part, q, k, table, ends, keep, layout)
            back = _Backward(slab, errors[part], starts[part], None if inverse is None else inverse[part])
            back.read(tokens_of(dy, part, layout), d_table[part, :, layout.reads])
            dz = back.chunk_loop(dz)
            back.write(d_ends[part])
            back.compare(d_table[part, :, : -1 : layout.chunk], None if keep is None else d_keep[part], layout.chunk)
            for output, d in zip(outputs, (back.d_q, back.d_k, back.d_v), strict=True):
                output[part].copy_(d.unflatten(1, output.shape[1:3]))
        return d_q, d_k, d_v, d_table, d_ends, d_keep, dz, None


def _chunk_loop(slab: _BlockSlab, v: Tensor, inverse: Tensor | None, errors: Tensor, starts: Tensor) -> None:
    """E and the next Z of a slab's blocks, into `errors` and `starts` (a row more)."""
    width, known = slab.k.shape[-1], slab.known.shape[-1]
    zs, memories, surprises = (x.unbind() for x in (starts, starts[:, :, :width], starts[:, :, width:]))
    parts = zip(v, slab.known, slab.writes.mT, errors, *slab.kept(), strict=True)
    for i, (value, key, write, error, m_m, m_s, s_s) in enumerate(parts):
        if inverse is None:
            torch.baddbmm(value, key, zs[i][:, :known], alpha=-1, out=error)
        else:
            torch.bmm(inverse[i], value.baddbmm_(key, zs[i], alpha=-1), out=error)
        torch.mul(memories[i], m_m, out=memories[i + 1]).addcmul_(surprises[i], m_s)
        torch.mul(surprises[i], s_s, out=surprises[i + 1])
        zs[i + 1].baddbmm_(write, error)


class _Backward:
    """The gradients of one slab, gathered as its parts are gone back over: `read`, `chunk_loop`, `write`, `compare`."""

    def __init__(self, slab: _BlockSlab, errors: Tensor, starts: Tensor, inverse: Tensor | None):
        self.slab, self.errors, self.starts, self.inverse = slab, errors, starts, inverse

    def read(self, dy: Tensor, d_rows: Tensor) -> None:
        """Back over `O = A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E`, but for Z, into the table's rows."""
        slab, self.dy = self.slab, dy
        scores = slab.q @ slab.k.mT
        d_scores = dy @ self.errors.mT
        torch.mul(scores, d_scores, out=d_rows[..., 2:])
        self.d_errors = product(scores.mul_(slab.within).mT, dy)
        d_scores.mul_(slab.within)
        self.d_q, d_rows[..., :2] = gathered(dy @ self.starts.mT, slab.q, slab.before)
        add_product(self.d_q, d_scores, slab.k)
        self.d_k = d_scores.mT @ slab.q

    def chunk_loop(self, dz: Tensor) -> Tensor:
        """Back over the blocks one after another: dE whole, dZ after each block, and dZ before the first."""
        slab, width, known = self.slab, self.slab.k.shape[-1], self.slab.known.shape[-1]
        self.d_v = self.d_errors if self.inverse is None else torch.empty_like(self.d_errors)
        # Row i + 1 is the gradient of Z after block i.
        rows = dz.new_empty(len(self.starts) + 1, *dz.shape)
        rows[-1] = dz
        self.after = rows[1:]
        zs, memories, surprises = (x.unbind() for x in (rows, rows[:, :, :width], rows[:, :, width:]))
        read, keys = slab.reading.mT.unbind(), slab.known.mT.unbind()
        parts = list(zip(self.dy, slab.writes, self.d_errors, self.d_v, *slab.kept(), strict=True))
        for i in range(len(parts) - 1, -1, -1):
            dy, write, error, solved, m_m, m_s, s_s = parts[i]
            error.baddbmm_(write, zs[i + 1])
            if self.inverse is not None:
                torch.bmm(self.inverse[i].mT, error, out=solved)
            torch.mul(memories[i + 1], m_m, out=memories[i])
            torch.mul(memories[i + 1], m_s, out=surprises[i]).addcmul_(surprises[i + 1], s_s)
            zs[i].baddbmm_(read[i], dy)
            if known == width:  # to a part of Z, a product would be added group by group
                memories[i].sub_(torch.bmm(keys[i], solved))
            else:
                zs[i].baddbmm_(keys[i], solved, alpha=-1)
        return zs[0]

    def write(self, d_ends: Tensor) -> None:
        """Back over the writes to keys and coefficients, and over what is kept of Z."""
        slab, width = self.slab, self.slab.k.shape[-1]
        d_k, shares = gathered(self.errors @ self.after.mT, slab.k, slab.shares)
        self.d_k += d_k
        d_ends[..., 2:] = shares.mT
        (m, s), (dm, ds) = self.starts.split(width, 2), self.after.split(width, 2)
        for row, column, left, right in ((0, 0, dm, m), (0, 1, dm, s), (1, 1, ds, s)):
            torch.sum(left * right, (-2, -1), out=d_ends[:, :, row, column])

    def compare(self, d_rows: Tensor, d_keep: Tensor | None, chunk: int) -> None:
        """Back over `(I + X)^-1 (V - known Z)`, to keys, the rows of the anchors and what is kept."""
        slab = self.slab
        d_known = product(self.d_v, self.starts[:, :, : slab.known.shape[-1]].mT).neg_()
        if slab.anchored is None:
            if d_keep is not None:
                torch.sum(d_known * slab.k, -1, out=d_keep)
                d_known.mul_(slab.keep)
            self.d_k += d_known
            return
        d_x = (self.d_v @ self.errors.mT).neg_()
        d_k, d_before = gathered(d_known, slab.k, slab.anchored[..., :2])
        d_anchored = torch.cat([d_before, d_x * (slab.k @ slab.k.mT)], -1)
        d_x.mul_(slab.anchored[..., 2:])
        self.d_k += d_k
        add_product(self.d_k, d_x + d_x.mT, slab.k)
        if d_keep is not None:
            torch.sum(d_anchored * slab.rows, -1, out=d_keep)
            d_anchored.mul_(slab.keep)
        for first in range(chunk):
            part = d_anchored[:, :, first::chunk]
            d_rows[:, :, : part.shape[2]] += part


def tokens_of(x: Tensor, part: slice, layout: Layout) -> Tensor:
    """The tokens [s, g, size, d] of some blocks of a text [b, t, h, d], as a copy of their own."""
    return layout.cut(x)[part].clone(memory_format=torch.contiguous_format).flatten(1, 2)


def spread(x: Tensor, shares: Tensor) -> Tensor:
    """Rows x [s, g, size, d] beside one another, each by its coefficient: [s, g, size, shares * d]."""
    return (x.unsqueeze(-2) * shares.unsqueeze(-1)).flatten(-2)


def gathered(d: Tensor, x: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of its coefficients, from that of `spread(x, shares)`."""
    first, second = d.chunk(2, -1)
    d_x = torch.mul(first, shares[..., :1]).addcmul_(second, shares[..., 1:])
    return d_x, d.unflatten(-1, (2, -1)).mul_(x.unsqueeze(-2)).sum(-1)


def product(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, a.shape[:2])


def add_product(onto: Tensor, a: Tensor, b: Tensor) -> None:
    onto.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1))
