"""Floating-point operations of log-linear attention in its chunked form."""

from __future__ import annotations

from models.ops.flops import Flops, product_flops
from models.ops.log_linear.chunked import CHUNK


def log_linear_flops(time: int, heads: int, keys: int, values: int, *, compare: bool = False) -> Flops:
    """Log-linear attention over one text from its beginning, with levels enough; `compare` is the gated delta rule.

    Before chunk i as many buckets are filled as i has binary ones: each is read, and under a comparison turned.
    """
    whole, tail = divmod(time, CHUNK)
    pieces = [(whole, CHUNK, sum(i.bit_count() for i in range(whole))), (1, tail, whole.bit_count() if tail else 0)]
    products = solved = 0
    for count, size, buckets in pieces:
        products += count * size * (size * (keys + values) + keys * values) + buckets * size * keys * values
        if compare:
            products += count * size * (size * (size + 3 * keys) + keys**2) + buckets * keys**2 * values
            solved += count * size**3
    return product_flops(heads * products).plus(Flops(heads * solved, 3.0 * heads * solved))
