"""A profile of one training step of a layer (or of a whole language model), for `bench.py profile`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from rich.table import Table

from measuring.building import opponents
from models import kernels, language_model, registry
from models.language_model import Size
from tasks import contest, profiling
from tasks.precision import precision
from tasks.throughput import train_step

VOCABULARY = 256
SHOWN = 12


def profile_table(name: str, size: Size, length: int, batch: int, settings: dict[str, Any], dtype: str) -> Table:
    """Where a forward and backward of `name` spends its time, by kind of work and by operator, as a table.

    `name` is a registered model or an opponent of the contests; a mixer is profiled as one layer, a whole language model
    with its optimiser's step. Its floor is what its matrix products would take at the rate of one large product, measured
    here. Raises ValueError for an unknown name or setting and for sizes below 1.
    """
    if min(length, batch) < 1:
        raise ValueError(f"A profile needs at least one row and one token, not {batch} x {length}.")
    with precision(dtype, "cpu"), kernels.watch() as ran:
        step, counted = _step(name, size, length, batch, settings)
        found = profiling.profile(step)
        flops = contest.count_flops(step) if counted else None
        rate = contest.product_rate(dtype, "cpu")
    floor = f", {found.unprofiled / (flops / rate):.1f} times the floor of its matrix products" if flops else ""
    table = Table("work", "calls", "ms", "share", caption=f"forms: {', '.join(sorted(ran)) or 'its own'}")
    table.title = (
        f"{name}, {batch} x {length:,} tokens, {dtype}, {torch.get_num_threads()} threads: "
        f"{found.unprofiled * 1e3:.1f} ms a step ({found.seconds * 1e3:.1f} ms under the profiler){floor}"
    )
    for kind, seconds in found.kinds.items():
        table.add_row(f"[bold]{kind}[/bold]", "", f"{seconds * 1e3:.2f}", f"{seconds / found.seconds:.0%}")
    table.add_section()
    for operator, calls, seconds in found.operators[:SHOWN]:
        table.add_row(operator, f"{calls:,.0f}", f"{seconds * 1e3:.2f}", f"{seconds / found.seconds:.0%}")
    return table


def _step(name: str, size: Size, length: int, batch: int, settings: dict[str, Any]) -> tuple[contest.Step, bool]:
    """The step to profile, and whether its matrix products may be counted."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    if name not in registry.names() and name in opponents().OPPONENTS:
        layer = opponents().build(name, size.width, size.heads, **settings)
        forward, counted = layer, opponents().OPPONENTS[name].shares_layer
    else:
        entry = registry.entry(name)
        language_model.check_settings(entry, settings)
        if entry.is_language_model:
            model = language_model.seeded(name, size, 0, **settings)
            return partial(train_step, model, torch.randint(VOCABULARY, (batch, length), generator=draw)), True
        layer, counted = entry.cls(size.width, size.heads, **settings), True
        forward = lambda x: layer(x)[0]  # noqa: E731
    x = torch.randn(batch, length, size.width, generator=draw)
    return contest.layer_step(forward, list(layer.parameters()), x), counted
