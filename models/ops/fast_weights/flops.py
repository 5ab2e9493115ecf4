"""Floating-point operations of large-chunk test-time training in its chunked form."""

from __future__ import annotations

from models.ops.fast_weights.recurrence import POLYNOMIALS
from models.ops.flops import Flops, product_flops


def fast_weights_flops(time: int, heads: int, width: int, hidden: int, chunk: int, muon: bool) -> Flops:
    """The network read by every query, its gradient by every key, and Muon's products behind every full chunk."""
    weights = heads * width * hidden
    least = min(width, hidden)
    polynomials = 3 * len(POLYNOMIALS) * heads * least * least * (least + 2 * max(width, hidden)) if muon else 0
    return product_flops(time * (3 + 6) * weights + time // chunk * polynomials)
