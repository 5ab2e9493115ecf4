"""A profile of one training step of a layer (or of a whole language model), for `bench.py profile`."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from models import registry, user_file
from models.shell.model import Size
from results.cell import Cell
from runner.build import opponents, sized
from runner.commands.shared.arguments import SETTING, Command, settings_of, size_in
from runner.contests import entrant_step, is_counted
from runner.preflight import capacity
from runner.preflight.refusals import check_cells
from tasks.harness.precision import precision
from tasks.speed import contest, profiling
from tasks.speed.small_numbers import as_zero

VOCABULARY = 256
SHOWN = 12


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `profile`."""
    add = command.add_argument
    add(
        "model",
        help="a registered name, a path/to/file.py or package/ of one model, or an external implementation (docs/speed.md)",
    )
    add("--size", metavar="width=256,heads=4", help="of the layer")
    add("--length", type=int, default=1024, help="tokens in a row")
    add("--batch", type=int, default=2, help="rows")
    add("--dtype", default="float32", help="float32, float32+onednn or bfloat16")
    add("--threads", type=int, default=1, help="threads of a product")
    add("--set", **SETTING)


def profile(arguments: argparse.Namespace, console: Console) -> int:
    """Print where the time of a model's or an external implementation's training step goes."""
    if user_file.is_path(arguments.model):
        arguments.model, *others = user_file.load_file(arguments.model)
        if others:
            raise ValueError(
                f"The file registers {arguments.model} and {', '.join(others)}; profile takes a file of one model."
            )
    settings = settings_of(arguments, arguments.model, "profiled")
    capacity.check_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    fields = {"vocab": VOCABULARY, "width": 256, "depth": 1, "heads": 4}
    size = sized(fields, size_in(arguments.size) if arguments.size else {})
    shape = (arguments.length, arguments.batch)
    console.print(profile_table(arguments.model, size, *shape, settings, arguments.dtype))
    return 0


def profile_table(name: str, size: Size, length: int, batch: int, settings: dict[str, Any], dtype: str) -> Table:
    """Where a forward and backward of `name` spends its time, by kind of work and by operator, as a table.

    `name` is a registered model or an external implementation of the side-by-side benchmarks; a mixer is profiled as one layer, a
    whole language model with its optimiser's step. Its floor is what its matrix products would take at the rate of one large
    product, measured here. Raises ValueError for an unknown name or setting and for sizes below 1.
    """
    if min(length, batch) < 1:
        raise ValueError(f"A profile needs at least one row and one token, not {batch} x {length}.")
    cell, made = _cell(name, size, length, batch, settings, dtype), {}
    check_cells([cell])
    (entrant,) = cell.entrants
    with precision(dtype, "cpu"), as_zero():
        step = entrant_step(cell, entrant, made, {})
        found = profiling.profile(step)
        flops = contest.count_flops(step) if is_counted(entrant) else None
        rate = contest.product_rate(dtype, "cpu")
    floor = f", {found.unprofiled / (flops / rate):.1f} times the floor of its matrix products" if flops else ""
    table = Table("work", "calls", "ms", "share", caption=f"forms: {made['provider'] or 'its own'}")
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


def _cell(name: str, size: Size, length: int, batch: int, settings: dict[str, Any], dtype: str) -> Cell:
    """The side-by-side benchmark of this one candidate, with which its step is built as a side-by-side benchmark builds it."""
    opponent = name if name not in registry.names() and name in opponents().OPPONENTS else ""
    whole = not opponent and registry.entry(name).is_language_model
    entrant = {"name": name, "model": "" if opponent else name, "opponent": opponent, "settings": settings}
    return Cell(
        comparison="",
        kind="contest",
        model="",
        settings={},
        task="profile",
        task_settings={"level": "model" if whole else "layer", "batch": batch},
        size={"width": size.width, "depth": size.depth, "heads": size.heads},
        budget={},
        seed=0,
        lr=0.0,
        dtype=dtype,
        provider="auto",
        device="cpu",
        threads=torch.get_num_threads(),
        where={"length": length},
        entrants=[entrant],
    )


COMMANDS = {
    "profile": Command(
        "where the time of a training step goes, on the CPU", add_flags, profile, "profile titans-lmm --length 4096"
    )
}
