"""Floating-point operations of the diagonal recurrence."""

from __future__ import annotations

from models.ops.flops import Flops


def diagonal_flops(time: int, numbers: int, complex_numbers: bool = False) -> Flops:
    """`h = a h + x` over `numbers` numbers of the state: two operations a number and token, eight of a complex one.

    It has no matrix form: all of it is elementwise.
    """
    return Flops(0.0, 0.0, (8.0 if complex_numbers else 2.0) * time * numbers)
