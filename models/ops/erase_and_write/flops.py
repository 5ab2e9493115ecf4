"""Floating-point operations of erasing and writing in its chunked form."""

from __future__ import annotations

from models.ops.erase_and_write.chunked import CHUNK
from models.ops.flops import Flops, filled, product_flops
from models.ops.triangular import BLOCK as SOLVED


def erase_and_write_flops(time: int, heads: int, keys: int, values: int, *, kinds: int = 1) -> Flops:
    """Heads of key width `keys` and value width `values`, as `models.ops.erase_and_write.chunked` computes them.

    `kinds` is 2 where one key erases and another writes, else 1.
    """
    size = min(CHUNK, 1 << (time - 1).bit_length())
    rows, states = filled(time, size) * heads, keys * values
    squares = (size - 1) * keys * kinds  # two reads against each kind: of a chunk's products those below the diagonal
    inside = size * (keys + values + kinds * values + (kinds - 1) * values)
    counted = product_flops(rows * (squares + inside + (2 + kinds) * states))
    inverse = 2 * rows / size * _inverse(size)
    return Flops(counted.forward + inverse, counted.backward + 2 * rows * size * values)  # backward, inverses are kept


def _inverse(size: int) -> float:
    """Multiply-adds of one unit lower triangular matrix's inverse: blocks on the diagonal are solved, then joined in pairs."""
    step = min(size, SOLVED)
    total = size * step**2 / 2
    while step < size:
        total += size * step**2
        step *= 2
    return total
