"""What no machine here could hold: refused from the numbers asked for, before a model is built or a text is drawn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from models.shell.model import default_feed
from results.cell import Cell
from results.rows.metrics import byte_size
from schema import shortened
from tasks.outline import outline

TOKEN = 8  # bytes of a token, as texts are drawn
WEIGHT = 4  # bytes
TRAINED = 16  # a weight, its gradient and the optimiser's two averages
# What a block keeps of each token for its backward pass, in numbers as wide as the model: in and out of two norms (4), q, k, v
# and what attention gives (4), SwiGLU's gate, its other half and their product (8, at 8/3 of the width each).
KEPT = 16
SURE = 0.75  # of a forecast: compiled forms keep up to a quarter less than is counted (docs/scaling.md)
ADDRESSES = 2**47  # bytes that one process can address on today's machines: what no other machine could hold either


def memory_of(device: str) -> int:
    """Bytes of the device's memory."""
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_size(
    size: dict[str, int], bytes_a_number: int = WEIGHT, tokens: int = 0, device: str = "cpu", elsewhere: bool = False
) -> None:
    """ValueError where the reference Transformer of a size, to whose parameters all are matched, is larger than the memory.

    With `tokens`, what its forward pass keeps of so many is counted too. `elsewhere` as in `check_cell`.
    """
    width, depth = size["width"], size["depth"]
    numbers = depth * (4 * width * width + 3 * width * default_feed(width))
    needed = bytes_a_number * numbers + WEIGHT * KEPT * tokens * width * depth
    at_once = f" with {shortened(tokens)} tokens at once" if tokens else ""
    _refuse(needed, f"a model of size {shortened(size)}{at_once}", device, elsewhere)


def check_cell(cell: Cell, elsewhere: bool = False) -> None:
    """ValueError where a cell asks for more than the memory of its device holds: its model, its batch, or the texts of its task.

    `elsewhere` says that another machine measures it: only what none could hold is refused.
    """
    lengths = [cell.where.get("length", 1), *(n for key, n in _numbers(cell.task_settings) if "length" in key)]
    setting = {key: n for key, n in _numbers(cell.task_settings) if "length" in key}
    longest = max([n for n in lengths if isinstance(n, int)], default=1)
    _refuse(
        TOKEN * longest, f"a text of {shortened(longest)} tokens ({', '.join(setting) or 'length'})", "cpu", elsewhere
    )
    samples = cell.task_settings.get("samples", 1)
    if isinstance(samples, int):
        # not their texts: a task may draw them a few at a time, and fewer of the long ones
        _refuse(TOKEN * samples, f"what is kept of the answers to {shortened(samples)} samples", "cpu", elsewhere)
    if cell.kind == "contest":
        rows, width = cell.task_settings.get("batch", 1), cell.size.get("width", 1)
        what = f"a batch of {shortened(rows)} rows of {shortened(longest)} tokens, {shortened(width)} numbers each,"
        number = WEIGHT // 2 if cell.dtype == "bfloat16" else WEIGHT
        _refuse(number * rows * longest * width, what, cell.device, elsewhere)
    if cell.size:
        learns = cell.kind in ("training", "trial")
        tokens = at_once(cell.budget) if learns else 0
        tokens //= 2 if cell.dtype == "bfloat16" else 1
        check_size(cell.size, TRAINED if learns else WEIGHT, tokens, cell.device, elsewhere)
        vocab = (outline(cell.task, cell.task_settings).vocab or 0) if learns else 0  # 0: only a file would say it
        what = f"a vocabulary of {shortened(vocab)} tokens at width {cell.size['width']}"
        _refuse(TRAINED * vocab * cell.size["width"], what, cell.device, elsewhere)


def at_once(budget: dict[str, Any]) -> int:
    """Tokens that one process holds in one backward pass: those of a micro-batch, or of its share of the batch."""
    share = budget.get("batch_tokens", 0) // budget.get("processes", 1)
    return min(share, budget.get("micro_batch_tokens", share))


def check_forecast(needed: int, what: str) -> None:
    """ValueError where what was forecast to need so many bytes fits into no machine."""
    _refuse(needed, what, "cpu", elsewhere=True)


def check_forecast_here(needed: int, what: str, device: str) -> None:
    """ValueError where so many bytes were forecast that the device cannot hold them, a warning where it may not."""
    there = memory_of(device)
    if needed <= there:
        return
    told = f"{what} is forecast to need {byte_size(needed)} of memory, and there are {byte_size(there)} here; "
    told += "a smaller micro_batch_tokens, or activation_checkpointing, in [budget] needs less at the same loss."
    if SURE * needed > there:
        raise ValueError(told)
    warnings.warn(told, stacklevel=2)


def _numbers(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and not isinstance(number, bool):
                yield key, number


def _refuse(needed: int, what: str, device: str, elsewhere: bool) -> None:
    there = ADDRESSES if elsewhere else memory_of(device)
    if needed <= there:
        return
    told = f"{byte_size(there)} are what one process can address" if elsewhere else f"there are {byte_size(there)} here"
    raise ValueError(f"{what} needs {byte_size(needed)} of memory or more, and {told}; choose less.")


def check_threads(threads: int) -> None:
    """ValueError for more threads than processors: their times would say nothing."""
    if not 1 <= threads <= (most := os.cpu_count() or 1):
        raise ValueError(f"threads must be from 1 to the {most} processors of this machine, not {shortened(threads)}.")
