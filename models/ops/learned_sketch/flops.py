"""Floating-point operations of learned sketches in their fast forms."""

from __future__ import annotations

from models.ops.flops import Flops


def learned_sketch_flops(rows: int, width: int, hidden: int, sketch: int) -> Flops:
    """Two networks of two hidden layers over `rows` vectors, biases as one more column; backward they are computed again."""
    products = 2.0 * rows * 2 * hidden * (width + 1 + sketch + sketch + 1 + sketch)
    return Flops(products, 3 * products)
