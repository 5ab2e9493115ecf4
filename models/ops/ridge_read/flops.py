"""Floating-point operations of the ridge regression's read in its chunked form."""

from __future__ import annotations

from models.ops.flops import Flops, filled
from models.ops.ridge_read.chunked import CHUNK


def ridge_read_flops(time: int, heads: int, keys: int, values: int, steps: int) -> Flops:
    """All `steps` of conjugate gradients, forward and backward, and the two scans; rows that stop earlier cost less."""
    size = min(CHUNK, time)
    rows = filled(time, size) * heads
    step = rows * (2 * size * keys + keys * keys)
    scan = rows * (size * (keys + values) + 2 * keys * values)
    written = rows * keys * keys
    return Flops(2.0 * (steps * step + written + scan), 2.0 * (steps * step + 3 * (step + written) + 2 * scan))
