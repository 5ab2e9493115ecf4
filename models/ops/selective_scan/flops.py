"""Floating-point operations of Mamba's selective scan."""

from __future__ import annotations

from models.ops.flops import Flops


def selective_flops(time: int, channels: int, states: int) -> Flops:
    """Mamba's selective scan: reading is a product; the update `a h + u B` with its exponent is three operations a number."""
    read = 2.0 * time * channels * states
    return Flops(read, 3 * read, 3.0 * time * channels * states)
