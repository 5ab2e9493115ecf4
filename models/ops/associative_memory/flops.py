"""Floating-point operations of memories after Titans in their chunked forms."""

from __future__ import annotations

from collections.abc import Sequence

from models.ops.associative_memory.newton_schulz import STEPS
from models.ops.associative_memory.window_recurrence import WindowRule
from models.ops.flops import Flops, filled, product_flops


def retention_flops(time: int, chunk: int, heads: int, widths: Sequence[int]) -> Flops:
    """MIRAS' memory of layers `widths[i] -> widths[i + 1]` a head: keys and errors through it, written, read."""
    size = min(chunk, time)
    return product_flops(filled(time, size) * heads * _memory(size, size, widths))


def omega_flops(time: int, rule: WindowRule, heads: int, widths: Sequence[int]) -> Flops:
    """The Omega rule's memory: as MIRAS', with the window before every chunk, and orthogonal steps if there are any."""
    size = min(rule.chunk, time)
    rows = filled(time, size) * heads
    reach = size + rule.window - 1
    if rule.orthogonal is None:
        return product_flops(rows * _memory(size, reach, widths))
    total = 0.0
    for given, made in zip(widths, widths[1:], strict=False):
        small, weights = min(given, made), given * made
        step = STEPS * (2 * small * weights + small**3)
        total += weights + (3 * reach / size) * weights
        total += step + (size + reach) * weights if rule.orthogonal == "token" else step / size
    return product_flops(rows * total)


def _memory(size: int, reach: int, widths: Sequence[int]) -> float:
    """Multiply-adds for each token, of chunks in which `size` tokens read what `reach` tokens write."""
    total = 0.0
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        passed = 3 if index else 2  # forward, back (but for the first layer), written
        total += given * made * (1 + passed * reach / size) + reach * (given + made)
    return total
