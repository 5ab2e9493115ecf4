"""Floating-point operations of the matrix state's law in its chunked form."""

from __future__ import annotations

from models.ops.flops import Flops, filled, product_flops
from models.ops.scan.chunked import CHANNEL_CHUNK, CHUNK, NARROW
from models.ops.triangular import BLOCK as SOLVED


def scan_flops(
    time: int,
    heads: int,
    keys: int,
    values: int,
    *,
    compare: bool = False,
    per_channel: bool = False,
    shared_keys: bool = False,
) -> Flops:
    """The matrix-state law with heads of key width `keys` and value width `values`, as `models.ops.scan.chunked` computes it.

    `compare` is the delta rule, `per_channel` forgetting per key channel; with `shared_keys` q and k have one head for all.
    """
    if per_channel:  # a chunk is halved down to single tokens: of its scores only the squares below the diagonal
        size = min(CHANNEL_CHUNK, 1 << (time - 1).bit_length())
        return product_flops(filled(time, size) * heads * ((size - 1) * keys / 2 + size * values + 2 * keys * values))
    size = min(CHUNK // 2 if keys <= NARROW and not shared_keys else CHUNK, time)
    rows = filled(time, size) * heads
    scores = size * keys * (rows / heads if shared_keys else rows)
    if not compare:
        return product_flops(scores + rows * (size * values + 2 * keys * values))
    states = keys * values
    forward = 2 * rows * (3 * size * keys + 2 * size * values + 3 * states) + rows / size * _inverse(size)
    return Flops(forward, 2 * rows * (4 * size * keys + 4 * size * values + 6 * states))


def _inverse(size: int) -> float:
    """The inverse of one unit lower-triangular matrix: blocks on the diagonal are solved, then joined in pairs."""
    if size <= SOLVED:
        return float(size**3)
    whole = SOLVED << max(0, (size - 1).bit_length() - (SOLVED - 1).bit_length())
    joins = sum(4 * step**2 for step in (SOLVED << level for level in range((whole // SOLVED).bit_length() - 1)))
    return whole * (SOLVED**2 + joins / 2)
