"""Floating-point operations of matrix products and of attention, for one text of `time` tokens; how all formulas count.

Each operation's folder has the formula of its chunked form in `flops.py`.

Counted are the multiply-adds of matrix products, two operations each: what a matrix unit does. Elementwise work (gates,
decays, norms, activations) is left out, but for the one recurrence that has no matrix form, Mamba's, whose state update stands
apart in `elementwise`. A text is filled up to whole chunks of the CPU's size, as the forms fill it. Backward, a product costs
two of its kind, a triangular system a second system and two products, and attention computes its scores again; the delta
rule keeps its inverses and pays less.
"""

from __future__ import annotations

from typing import NamedTuple


class Flops(NamedTuple):
    """Operations of matrix products forward and backward, and of a state update without matrix form, forward."""

    forward: float
    backward: float
    elementwise: float = 0.0

    def plus(self, other: Flops) -> Flops:
        """The sum of two parts."""
        return Flops(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> Flops:
        """`factor` of these."""
        return Flops(*(factor * a for a in self))


def product_flops(multiply_adds: float) -> Flops:
    """Matrix products of so many multiply-adds."""
    return Flops(2 * multiply_adds, 4 * multiply_adds)


def attention_flops(rows: int, columns: int, width: int) -> Flops:
    """Softmax attention of `rows` queries over `columns` keys, `width` over all heads; hidden pairs are computed too."""
    return Flops(4.0 * rows * columns * width, 10.0 * rows * columns * width)


def window_flops(time: int, window: int, width: int, prefix: int = 0) -> Flops:
    """Sliding-window attention: blocks of `window` queries over two blocks of keys, and the prefix."""
    if time <= window:
        return attention_flops(time, time + prefix, width)
    return attention_flops(filled(time, window), 2 * window + prefix, width)


def filled(time: int, size: int) -> int:
    """`time` filled up to whole chunks of `size`."""
    return -(-time // size) * size
