"""Floating-point operations of each recurrence in its chunked form, for one text of `time` tokens.

Counted are the multiply-adds of matrix products, two operations each: what a matrix unit does. Elementwise work (gates,
decays, norms, activations) is left out, but for the one recurrence that has no matrix form, Mamba's, whose state update stands
apart in `elementwise`. A text is filled up to whole chunks of the CPU's size, as the forms fill it. Backward, a product costs
two of its kind, a triangular system a second system and two products, and attention computes its scores again; the delta
rule keeps its inverses and pays less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.ops.neural_memory.chunked_linear import ALONE, BLOCK
from models.ops.scan.chunked import CHANNEL_CHUNK, CHUNK, NARROW
from models.ops.triangular import BLOCK as SOLVED


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
    return attention_flops(_filled(time, window), 2 * window + prefix, width)


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
        return product_flops(_filled(time, size) * heads * ((size - 1) * keys / 2 + size * values + 2 * keys * values))
    size = min(CHUNK // 2 if keys <= NARROW and not shared_keys else CHUNK, time)
    rows = _filled(time, size) * heads
    scores = size * keys * (rows / heads if shared_keys else rows)
    if not compare:
        return product_flops(scores + rows * (size * values + 2 * keys * values))
    states = keys * values
    forward = 2 * rows * (3 * size * keys + 2 * size * values + 3 * states) + rows / size * _inverse(size)
    return Flops(forward, 2 * rows * (4 * size * keys + 4 * size * values + 6 * states))


def selective_flops(time: int, channels: int, states: int) -> Flops:
    """Mamba's selective scan: reading is a product; the update `a h + u B` with its exponent is three operations a number."""
    read = 2.0 * time * channels * states
    return Flops(read, 3 * read, 3.0 * time * channels * states)


def test_time_training_flops(time: int, mini_batch: int, heads: int, widths: Sequence[int]) -> Flops:
    """Test-time training of a network of layers `widths[i] -> widths[i + 1]` with biases, a head; the dual form."""
    size, total = min(mini_batch, time), 0
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        apply = (given + 1) * made  # forward, write and read each once; the error back through all layers but the first
        total += 3 * apply + size * (given + 1 + made) + (given * made if index else 0)
    return product_flops(_filled(time, size) * heads * total)


def memory_flops(time: int, chunk: int, heads: int, widths: Sequence[int]) -> Flops:
    """Titans' memory of any depth: keys and errors through the anchored network, [W | S] written, queries read."""
    size, total = min(chunk, time), 0
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        total += (6 if index else 5) * given * made + size * (given + made)
    return product_flops(_filled(time, size) * heads * total)


def linear_memory_flops(time: int, chunk: int, heads: int, keys: int, values: int) -> Flops:
    """Titans' memory of one matrix: blocks of one anchor, or of several tied by a triangular system."""
    size = min(chunk if chunk >= ALONE else BLOCK // chunk * chunk, time)
    rows = _filled(time, size) * heads
    products = rows * (5 * keys * values + size * (keys + values))
    if size <= chunk:
        return product_flops(products)
    several = product_flops(products + rows * (keys * values + size * keys))
    return several.plus(_triangular(rows, size, 2 * keys + values))


def _triangular(rows: float, size: int, columns: int) -> Flops:
    """Unit lower-triangular systems of `size` rows each, with `columns` right-hand sides."""
    return Flops(rows * size * columns, 3 * rows * size * columns)


def _inverse(size: int) -> float:
    """The inverse of one unit lower-triangular matrix: blocks on the diagonal are solved, then joined in pairs."""
    if size <= SOLVED:
        return float(size**3)
    whole = SOLVED << max(0, (size - 1).bit_length() - (SOLVED - 1).bit_length())
    joins = sum(4 * step**2 for step in (SOLVED << level for level in range((whole // SOLVED).bit_length() - 1)))
    return whole * (SOLVED**2 + joins / 2)


def _filled(time: int, size: int) -> int:
    return -(-time // size) * size
