"""Floating-point operations of Titans' memory in its chunked forms."""

from __future__ import annotations

from collections.abc import Sequence

from models.ops.flops import Flops, filled, product_flops
from models.ops.neural_memory.chunked_linear import ALONE, BLOCK


def memory_flops(time: int, chunk: int, heads: int, widths: Sequence[int]) -> Flops:
    """Titans' memory of any depth: keys and errors through the anchored network, [W | S] written, queries read."""
    size, total = min(chunk, time), 0
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        total += (6 if index else 5) * given * made + size * (given + made)
    return product_flops(filled(time, size) * heads * total)


def linear_memory_flops(time: int, chunk: int, heads: int, keys: int, values: int) -> Flops:
    """Titans' memory of one matrix: blocks of one anchor, or of several tied by a triangular system."""
    size = min(chunk if chunk >= ALONE else BLOCK // chunk * chunk, time)
    rows = filled(time, size) * heads
    products = rows * (5 * keys * values + size * (keys + values))
    if size <= chunk:
        return product_flops(products)
    several = product_flops(products + rows * (keys * values + size * keys))
    return several.plus(_triangular(rows, size, 2 * keys + values))


def _triangular(rows: float, size: int, columns: int) -> Flops:
    """Unit lower-triangular systems of `size` rows each, with `columns` right-hand sides."""
    return Flops(rows * size * columns, 3 * rows * size * columns)
