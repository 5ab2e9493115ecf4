"""Floating-point operations of test-time training in its dual form."""

from __future__ import annotations

from collections.abc import Sequence

from models.ops.flops import Flops, filled, product_flops


def test_time_training_flops(time: int, mini_batch: int, heads: int, widths: Sequence[int]) -> Flops:
    """Test-time training of a network of layers `widths[i] -> widths[i + 1]` with biases, a head; the dual form."""
    size, total = min(mini_batch, time), 0
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        apply = (given + 1) * made  # forward, write and read each once; the error back through all layers but the first
        total += 3 * apply + size * (given + 1 + made) + (given * made if index else 0)
    return product_flops(filled(time, size) * heads * total)
