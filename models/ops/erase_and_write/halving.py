"""Products between the tokens of a chunk under forgetting per key channel: sum over channels of r_t w_s e^{c_t - c_s}.

That is no matrix product of two safe factors: e^{-c} overflows. So a chunk is halved again and again. With a border between
two halves, the square of reads r in the second half and writes w in the first is

    (r_t e^{from the border to t}) . (w_s e^{from s to the border}),   both exponents <= 0.

Going up from single tokens to the whole chunk, reads are kept as they are seen from the beginning of their block, and writes
from its end: then a level's squares are plain products of what stands there, and a level ends with

    reads of the second half *= e^{all that the first forgets},   writes of the first half *= e^{all that the second forgets}.

At the top they are what the states before and behind the chunk need. Nothing is divided, no exponent is a difference, and in the
gradient of what a block forgets every term carries that factor: no gate is too near 0 or 1 for it.

Shapes: log_forget [n, m, c, k], c a power of two; reads [n, m, c, R, k] and writes [n, m, c, W, k], R and W kinds a token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """What one level's squares were made of: for each pair of halves, n * m of them side by side."""

    reads: Tensor  # [n, m, pairs, half * R, k], of second halves
    writes: Tensor  # [n, m, pairs, half * W, k], of first halves
    first: Tensor  # [n, m, pairs, 1, k]: e^{all that the first half forgets}
    second: Tensor


def products(reads: Tensor, writes: Tensor, log_forget: Tensor) -> tuple[Tensor, list[Level], Tensor]:
    """The products [n, m, c * R, c * W] of reads with writes of earlier tokens (0 elsewhere), and each level of the halving.

    `reads` and `writes`, given as single tokens see them, are at the end, in place, as the whole chunk does; what it keeps
    in all, [n, m, 1, k], comes last.
    """
    size = log_forget.shape[2]
    table = reads.new_zeros(*reads.shape[:2], size * reads.shape[3], size * writes.shape[3])
    levels, forgets, half = [], log_forget, 1
    while half < size:
        first, second = forgets.unflatten(2, (-1, 2)).unbind(3)
        level = Level(
            _half(reads, half, 1).clone(),
            _half(writes, half, 0).clone(),
            first.exp()[..., None, :],
            second.exp()[..., None, :],
        )
        _squares(table, size // half).copy_((level.reads @ level.writes.mT).movedim(2, -1))
        _half(reads, half, 1).mul_(level.first)
        _half(writes, half, 0).mul_(level.second)
        levels.append(level)
        forgets, half = first + second, 2 * half
    return table, levels, forgets.exp()


def products_backward(
    dtable: Tensor, dreads: Tensor, dwrites: Tensor, dforgets: Tensor, levels: list[Level]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of single tokens' reads, writes and log-forgetting, from those of what `products` gave.

    `dreads` and `dwrites`, those of the whole chunk's reads and writes, are changed in place; `dforgets` [n, m, 1, k] is that of
    the logarithm of what the chunk keeps.
    """
    half = 1 << len(levels)
    blocks = 2
    for level in reversed(levels):
        half //= 2
        square = _squares(dtable, blocks).movedim(-1, 2).contiguous()
        onto_reads, onto_writes = _half(dreads, half, 1), _half(dwrites, half, 0)
        onto_reads.mul_(level.first)
        onto_writes.mul_(level.second)
        of_first = (onto_reads * level.reads).sum(-2)
        of_second = (onto_writes * level.writes).sum(-2)
        dforgets = torch.stack([dforgets + of_first, dforgets + of_second], 3).flatten(2, 3)
        onto_reads += square @ level.writes
        onto_writes += square.mT @ level.reads
        blocks *= 2
    return dreads, dwrites, dforgets


def _half(x: Tensor, half: int, which: int) -> Tensor:
    """The first or second halves of all pairs, [n, m, c, R, k] -> a view [n, m, pairs, half * R, k]."""
    return x.flatten(2, 3).unflatten(2, (-1, 2, half * x.shape[3]))[:, :, :, which]


def _squares(table: Tensor, blocks: int) -> Tensor:
    """The squares between second and first halves of neighbouring blocks: a view [n, m, half * R, half * W, pairs]."""
    rows, columns = table.shape[2] // blocks, table.shape[3] // blocks
    cut = table.unflatten(3, (-1, 2, columns)).unflatten(2, (-1, 2, rows))
    return cut[:, :, :, 1, :, :, 0].diagonal(dim1=2, dim2=4)
