"""Floating-point operations of the diagonal recurrence."""

from __future__ import annotations

from models.ops.flops import Flops


def diagonal_flops(time: int, numbers: int, complex_numbers: bool = False) -> Flops:
    """`h = a h + x` over `numbers` numbers of the state: two operations a number and token, eight of a complex one.

    It has no matrix form: all of it is elementwise.
    """
    return Flops(0.0, 0.0, (8.0 if complex_numbers else 2.0) * time * numbers)


def outer_flops(time: int, channels: int, states: int) -> Flops:
    """The diagonal recurrence whose gates and writes are outer products: reading is a product, forgetting and writing are not."""
    read = 2.0 * time * channels * states
    return Flops(read, 5 * read, 3 * read)
