"""The Triton kernels as differentiable PyTorch functions: the scans, a chunk's read, and the matrix memory's chunk loop.

Batch rows and heads are one axis g, followed by chunks n: [g, n, size, ...], and [g, n, in, out] for the memory M and the
surprise S before a chunk. What has no order in it (a sum over a chunk's state, a product of stored tensors) is left to PyTorch.
Everything here is float32; keys and queries are read in `kind`, the dtype that the caller's were in.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.neural_memory.triton import chunk_read, deep_chunks, linear_chunks

SMALLEST = 16  # rows and columns of the least tile that tl.dot takes


def padded(size: int) -> int:
    """The power of two that a tile of `size` is padded to."""
    return max(SMALLEST, triton.next_power_of_2(size))


def tiles(size: int, width: int, out: int, kind: torch.dtype) -> dict[str, Any]:
    """Compile-time settings of a kernel. Half precision is multiplied in TF32, float32 in three passes of it.

    The state's tile is at most 64 x 64 or 128 x 32, what one program holds in registers.
    """
    blocks = {"BLOCK_C": padded(size), "BLOCK_D": padded(width)}
    blocks["BLOCK_V"] = min(padded(out), 64 if blocks["BLOCK_D"] <= 64 else 32)
    return {**blocks, "PRECISION": "tf32x3" if kind == torch.float32 else "tf32", "num_warps": 8, "num_stages": 1}


def deep_tiles(size: int, width: int, kind: torch.dtype) -> dict[str, Any]:
    """The same for the two-layer memory, whose tiles have one width."""
    return {name: value for name, value in tiles(size, width, width, kind).items() if name != "BLOCK_V"}


class Scans(torch.autograd.Function):
    """Gates [g, n, size] -> the table A and its momenta P, [g, n, size + 1, size + 2]."""

    @staticmethod
    def forward(ctx: Any, momentum: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        momentum, keep = momentum.contiguous(), keep.contiguous()
        lead, size = momentum.shape[:-1], momentum.shape[-1]
        a, p = (momentum.new_empty(*lead, size + 1, size + 2) for _ in range(2))
        chunk_read.scan[(lead.numel(),)](momentum, keep, a, p, size, BLOCK=padded(size + 2), num_warps=1)
        ctx.save_for_backward(momentum, keep, a, p)
        return a, p

    @staticmethod
    @by_hand
    def backward(ctx: Any, d_a: Tensor, d_p: Tensor) -> tuple[Tensor, Tensor]:
        momentum, keep, a, p = ctx.saved_tensors
        size = momentum.shape[-1]
        d_momentum, d_keep = torch.empty_like(momentum), torch.empty_like(keep)
        tensors = (momentum, keep, a, p, d_a.contiguous(), d_p.contiguous(), d_momentum, d_keep)
        chunk_read.scan_backward[(momentum.shape[:-1].numel(),)](*tensors, size, BLOCK=padded(size + 2), num_warps=1)
        return d_momentum, d_keep


class Read(torch.autograd.Function):
    """`A[.,M] Q M + A[.,S] Q S + (Q K^T o A) E`, [g, n, size, out]; `first` is the row of A that the first token reads."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, e: Tensor, m: Tensor, s: Tensor, table: Tensor, first: int, kind: torch.dtype
    ) -> Tensor:
        q, k = (x.to(kind).contiguous() for x in (q, k))
        e, m, s, table = (x.contiguous() for x in (e, m, s, table))
        lead, (size, width), out = q.shape[:2].numel(), q.shape[2:], e.shape[-1]
        settings = tiles(size, width, out, kind)
        y = torch.empty_like(e)
        grid = (lead, triton.cdiv(out, settings["BLOCK_V"]))
        chunk_read.read[grid](q, k, e, m, s, table, y, size, width, out, FIRST=first, **settings)
        ctx.save_for_backward(q, k, e, m, s, table)
        ctx.first, ctx.settings = first, settings
        return y

    @staticmethod
    @by_hand
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, e, m, s, table = saved = ctx.saved_tensors
        (size, width), out = q.shape[2:], e.shape[-1]
        d_q, d_k = (torch.empty_like(x, dtype=torch.float32) for x in (q, k))
        d_e, d_m, d_s, d_table = torch.empty_like(e), torch.empty_like(m), torch.empty_like(s), torch.zeros_like(table)
        grads = (d_q, d_k, d_e, d_m, d_s, d_table)
        grid = (q.shape[:2].numel(),)
        chunk_read.read_backward[grid](
            *saved, d_y.contiguous(), *grads, size, width, out, FIRST=ctx.first, **ctx.settings
        )
        return (*grads, None, None)


class ChunkLoop(torch.autograd.Function):
    """`E = U - Y [M; S]` and its writes, chunk after chunk: E, the M and S before each chunk, and the last.

    Shapes: u [g, n, size, out]; y [g, n, size, in or 2 in]; k [g, n, size, in]; ends [g, n, 2, size + 2]; m, s [g, in, out].
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, y: Tensor, k: Tensor, ends: Tensor, m: Tensor, s: Tensor, kind: torch.dtype
    ) -> tuple[Tensor, ...]:
        k = k.to(kind).contiguous()
        u, y, ends, m, s = (x.contiguous() for x in (u, y, ends, m, s))
        (heads, chunks, size, width), out = k.shape, u.shape[-1]
        settings = tiles(size, width, out, kind) | {"JOINED": y.shape[-1] > width}
        e, last_m, last_s = (torch.empty_like(x) for x in (u, m, s))
        starts_m, starts_s = (u.new_empty(heads, chunks, width, out) for _ in range(2))
        made = (e, starts_m, starts_s, last_m, last_s)
        grid = (heads, triton.cdiv(out, settings["BLOCK_V"]))
        linear_chunks.chunk_loop[grid](u, y, k, ends, m, s, *made, chunks, size, width, out, **settings)
        ctx.save_for_backward(y, k, ends, e, starts_m, starts_s)
        ctx.settings = settings
        return made

    @staticmethod
    @by_hand
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, k, ends, e, starts_m, starts_s = ctx.saved_tensors
        d_e, d_starts_m, d_starts_s, d_last_m, d_last_s = (d.contiguous() for d in grads)
        (heads, chunks, size, width), out = k.shape, e.shape[-1]
        d_u, after_m, after_s = (torch.empty_like(x) for x in (e, starts_m, starts_s))
        d_m, d_s = (torch.empty_like(d) for d in (d_last_m, d_last_s))
        given = (y, k, ends, d_e, d_starts_m, d_starts_s, d_last_m, d_last_s)
        grid = (heads, triton.cdiv(out, ctx.settings["BLOCK_V"]))
        linear_chunks.chunk_loop_backward[grid](
            *given, d_u, after_m, after_s, d_m, d_s, chunks, size, width, out, **ctx.settings
        )
        d_y = -(d_u @ starts_m.mT)
        if y.shape[-1] > width:
            d_y = torch.cat([d_y, -(d_u @ starts_s.mT)], -1)
        pulled_m, pulled_s = e @ after_m.mT, e @ after_s.mT
        d_k = pulled_m * ends[..., 0, 2:, None] + pulled_s * ends[..., 1, 2:, None]
        writes = torch.stack([(pulled * k).sum(-1) for pulled in (pulled_m, pulled_s)], -2)
        d_ends = torch.cat([carried(starts_m, starts_s, after_m, after_s), writes], -1)
        return d_u, d_y, d_k, d_ends, d_m, d_s, None


class DeepChunkLoop(torch.autograd.Function):
    """The two-layer memory's chunk loop: pre-activations z, errors e_1 and e_2 [g, n, size, d], states before each chunk.

    Shapes: k, v [g, n, size, d]; shares [g, n, 2, size + 2], a chunk's end rows with the tokens' columns times their rate; states
    (W_1, S_1, W_2, S_2) [4, g, d, d], before each chunk [4, g, n, d, d].
    """

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, shares: Tensor, first: Tensor, gelu: bool, kind: torch.dtype
    ) -> tuple[Tensor, ...]:
        k, v = (x.to(kind).contiguous() for x in (k, v))
        shares, first = shares.contiguous(), first.contiguous()
        heads, chunks, size, width = k.shape
        z, e1, e2 = (torch.empty_like(k, dtype=torch.float32) for _ in range(3))
        starts, last = first.new_empty(4, heads, chunks, width, width), torch.empty_like(first)
        made = (z, e1, e2, starts, last)
        settings = deep_tiles(size, width, kind) | {"GELU": gelu}
        deep_chunks.chunk_loop[(heads,)](k, v, shares, first, *made, chunks, size, **settings)
        ctx.save_for_backward(k, z, e1, e2, starts, shares)
        ctx.settings = settings
        return made

    @staticmethod
    @by_hand
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        k, z, e1, e2, starts, shares = saved = ctx.saved_tensors
        heads, chunks, size, _ = k.shape
        d_k, d_v = (torch.empty_like(z) for _ in range(2))
        d_writes, after, d_first = (
            z.new_empty(heads, chunks, 2, size),
            torch.empty_like(starts),
            torch.empty_like(grads[-1]),
        )
        given = (*saved, *(d.contiguous() for d in grads))
        deep_chunks.chunk_loop_backward[(heads,)](
            *given, d_k, d_v, d_writes, after, d_first, chunks, size, **ctx.settings
        )
        kept = carried(*starts[:2], *after[:2]) + carried(*starts[2:], *after[2:])
        return d_k, d_v, torch.cat([kept, d_writes], -1), d_first, None, None


def carried(m: Tensor, s: Tensor, d_m: Tensor, d_s: Tensor) -> Tensor:
    """Gradient of what a chunk keeps, `M <- g M + c S`, `S <- p S`: ((g, c), (0, p)), [g, n, 2, 2]. M never flows into S."""
    g, c, p = ((left * right).sum((-2, -1)) for left, right in ((d_m, m), (d_m, s), (d_s, s)))
    return torch.stack([g, c, torch.zeros_like(g), p], -1).unflatten(-1, (2, 2))


def coefficients(momentum: Tensor, keep: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """The table A of gates [g, n, size] and the rows (A, P) of each chunk's end; of the last chunk, row `last`."""
    a, p = Scans.apply(momentum, keep)
    ends = torch.stack([a[:, :, -1], p[:, :, -1]], -2)
    if last != momentum.shape[-1]:
        final = torch.stack([a[:, -1:, last], p[:, -1:, last]], -2)
        ends = torch.cat([ends[:, :-1], final], 1)
    return a, ends


def comparisons(
    k: Tensor, v: Tensor, rate: Tensor, known_rate: Tensor, table: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """U and Y of `E = U - Y [M; S]`, E being the rate times what a token finds wrong at its anchor, every `chunk` tokens.

    `known_rate` is the rate, times what is kept where gradients are taken at the decayed memory. With one anchor per
    block Y has only M's columns; more are one unit-triangular system, `(I + X) E = R`.
    """
    size = k.shape[2]
    fresh, known = v * rate[..., None], k * known_rate[..., None]
    if chunk >= size:
        return fresh, known
    rows = table[:, :, :-1:chunk].repeat_interleave(chunk, 2)[:, :, :size]
    x = known @ k.mT * rows[..., 2:]
    right = torch.cat([fresh, (known.unsqueeze(-2) * rows[..., :2, None]).flatten(-2)], -1)
    solved = torch.linalg.solve_triangular(x, right, upper=False, unitriangular=True)
    return solved.split([v.shape[-1], 2 * k.shape[-1]], -1)
