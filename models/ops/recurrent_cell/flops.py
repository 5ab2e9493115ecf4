"""Floating-point operations of recurrent cells in their chunked form."""

from __future__ import annotations

from models.ops.flops import Flops, product_flops
from models.ops.recurrent_cell.cells import CELLS


def recurrent_cell_flops(time: int, cell: str, units: int, heads: int = 1) -> Flops:
    """The products with the last output; those with inputs are `nn.Linear`s' or the caller's own."""
    return product_flops(time * len(CELLS[cell].gates) * units * units / heads)
