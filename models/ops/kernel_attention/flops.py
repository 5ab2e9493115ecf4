"""Floating-point operations of kernel attention in its chunked forms."""

from __future__ import annotations

from models.ops.flops import Flops, filled, product_flops
from models.ops.kernel_attention.features import SHORT, count
from models.ops.kernel_attention.polynomial import CHUNK
from models.ops.scan.flops import scan_flops


def kernel_attention_flops(
    time: int, heads: int, width: int, values: int, kernel: str, normalise: bool = True
) -> Flops:
    """Kernel attention with heads of `width` numbers (or features) and `values` values, as `chunked` computes it."""
    values += normalise
    if kernel not in SHORT:
        return scan_flops(time, heads, width, values)
    size = min(CHUNK, time)
    return product_flops(filled(time, size) * heads * (size * (width + values) + 2 * count(width, kernel) * values))


def random_feature_flops(rows: int, width: int, features: int) -> Flops:
    """`features` numbers of each of `rows` vectors of `width`, by fixed rows: backward they need one product, not two."""
    return Flops(2.0 * rows * width * features, 2.0 * rows * width * features)


def block_attention_flops(time: int, heads: int, width: int, sketch: int, values: int, block: int) -> Flops:
    """Exact weights in blocks of `block` tokens, squares of `sketch` numbers from block to block."""
    rows, values = filled(time, block) * heads, values + 1
    return product_flops(rows * (block * (width + values) + 2 * count(sketch, "square") * values))


def window_and_kernel_flops(time: int, heads: int, width: int, values: int, features: int, window: int) -> Flops:
    """Exact weights in a window, by blocks over two of keys, `features` exponentials for what has left it."""
    left = max(0, time - window)
    exact = product_flops(filled(time, window) * heads * 2 * window * (width + values + 1))
    made = random_feature_flops(2 * left * heads, width, features)
    return exact.plus(made).plus(scan_flops(left, heads, features, values + 1) if left else Flops(0, 0))
