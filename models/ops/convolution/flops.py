"""Floating-point operations of a linear time-invariant system in its chunked form."""

from __future__ import annotations

from models.ops.convolution.chunked import CHUNK, STEPS
from models.ops.flops import Flops, product_flops


def convolution_flops(time: int, channels: int, states: int, *, erase: bool = False) -> Flops:
    """A system with `states` complex numbers a channel over one text, the making of its matrices included.

    `erase` is the transition of rank one beside the diagonal.
    """
    numbers, rest = 2 * states, time % min(CHUNK, time)
    total = Flops(0.0, 0.0)
    for count, size in ((time // min(CHUNK, time), min(CHUNK, time)), (1, rest)):
        if size > STEPS:  # fewer tokens go one by one, without a matrix product
            total = total.plus(_chunks(count, size, numbers, erase).times(channels))
    return total


def _chunks(count: int, size: int, numbers: int, erase: bool) -> Flops:
    """`count` chunks of `size` tokens in one channel, of `numbers` real ones, and the making of their matrices."""
    products = count * size * (size + 2 * numbers) + size * numbers
    if not erase:
        return product_flops(products)
    solved = size**2 * (size + numbers)
    products += count * numbers**2 + 3 * size * numbers + solved + size * numbers * (size + numbers)
    return product_flops(products).plus(Flops(solved, 3.0 * solved))


def liquid_flops(time: int, channels: int, states: int, degree: int) -> Flops:
    """A liquid system of that degree over one text, the making of its matrices included."""
    numbers, length, products = 2 * states, min(CHUNK, time), 0
    for count, size in ((time // length, length), (1, time % length)):
        if size > STEPS:
            pairs = degree * (degree + 1) // 2
            products += count * size * (pairs * size + 2 * degree * numbers) + degree * size * numbers
    return product_flops(channels * products)
