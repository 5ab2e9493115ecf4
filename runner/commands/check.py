"""Models held to the contract, and to other people's code, for `bench.py check`."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models import registry, user_file
from models.conformance import diagnosis, kit
from models.shell.model import Size
from runner.build import sized
from runner.commands.shared.arguments import SETTING, Command, settings_in, size_in
from runner.preflight.device import hour


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `check`."""
    add = command.add_argument
    add("model", nargs="?", help="a registered name, a path/to/file.py or package/, or all")
    add("--parity", action="store_true", help="compare with other packages' code, where installed")
    add("--rows", metavar="FILE", help="with --parity: take from FILE what cannot be run here; keep all there")
    add("--markdown", action="store_true", help="with --parity: the page docs/parity.md")
    add("--thorough", action="store_true", help="the long properties too")
    add("--size", metavar="NAME|width=64,...", help="by name, or vocab, width, depth, heads; else width 32, two layers")
    add("--set", **SETTING)
    add(
        "--device",
        choices=("cuda", "cpu"),
        help="what only this device can tell: laws, kernels, speed, memory, in one go",
    )
    add("--minutes", type=float, default=hour.MINUTES, help="with --device: how long at most (%(default)g)")
    add("--dry-run", action="store_true", help="with --device: say what it would do")


def check(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a registered model, the models of a file, or all of them to the contract; print one line a property."""
    if arguments.device:
        return on_device(arguments, console)
    if arguments.dry_run or arguments.minutes != hour.MINUTES:
        raise ValueError("--dry-run and --minutes go with --device: python bench.py check --device cuda --dry-run")
    if arguments.parity:
        return 1 if parity(arguments.model, arguments.rows, arguments.markdown, console) else 0
    if arguments.model is None:
        raise ValueError("Say what to check: a registered name, a path/to/file.py, or all; or give --parity.")
    names = registry.names() if arguments.model == "all" else [arguments.model]
    if user_file.is_path(arguments.model):
        names = user_file.load_file(arguments.model)
    settings = settings_in(arguments.set)
    if set(settings) - set(names):
        raise ValueError(f"--set names {', '.join(sorted(set(settings) - set(names)))}, which is not checked here.")
    size = sized(asdict(kit.TINY), size_in(arguments.size) if arguments.size else {})
    return 1 if contract(names, settings, arguments.thorough, console, size) else 0


def on_device(arguments: argparse.Namespace, console: Console) -> int:
    """The first hour on a device, of all models or of one; or what it would do."""
    if (
        arguments.parity
        or arguments.thorough
        or arguments.size
        or arguments.set
        or arguments.rows
        or arguments.markdown
    ):
        raise ValueError("--device takes a model's name, --minutes and --dry-run; it asks at sizes of its own.")
    if not 0 < arguments.minutes < math.inf:
        raise ValueError(f"--minutes must be positive, not {arguments.minutes:g}.")
    names = registry.names() if arguments.model in (None, "all") else [registry.entry(arguments.model).name]
    if arguments.dry_run:
        hour.plan(arguments.device, arguments.minutes, console)
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device here; --dry-run says what would be done with one.")
    return hour.run(names, arguments.device, arguments.minutes, console)


def contract(
    names: list[str],
    settings: dict[str, dict[str, Any]],
    thorough: bool,
    console: Console,
    size: Size = kit.TINY,
) -> int:
    """Print one line for each property of each model; return how many failed.

    What holds is printed first; of what fails, the probable cause comes before what may only follow from it.
    """
    failed = 0
    for name in names:
        registry.entry(name)
        console.print(f"[bold]{name}[/bold]")
        found = {item.name: item for item in kit.check(name, size, thorough=thorough, **settings.get(name, {}))}
        for item in found.values():
            if item.passed:
                _line(console, "[green]holds[/green]  ", item)
        wrong, follow = diagnosis.ordered(item.name for item in found.values() if not item.passed)
        for place, each in enumerate(wrong):
            first = f"[red]FAILS[/red]  probable cause, {escape(diagnosis.cause(each))}: "
            rest = "[red]FAILS[/red]  (may follow from it) " if each in follow else "[red]FAILS[/red]  "
            _line(console, rest if place else first, found[each])
        failed += len(wrong)
    console.print(f"{len(names)} model(s) checked, {failed} propert{'y' if failed == 1 else 'ies'} failed")
    return failed


def _line(console: Console, mark: str, item: kit.Property) -> None:
    figure = f"{item.figure:.3g}" if isinstance(item.figure, float) else item.figure
    console.print(f"  {mark}{item.name}: {figure}  {escape(item.detail)}", highlight=False, soft_wrap=True)


def parity(model: str | None, kept: str | None, markdown: bool, console: Console) -> int:
    """Print the ledger of a model, or of all: how far its numbers are from independent code; return how many failed.

    `kept` is a file of rows: what cannot be run here is taken from it, and all is kept there.
    """
    from baselines.oracles.parity import ledger, ledger_rows

    whole = model in (None, "all")
    stored = ledger_rows.read(Path(kept)) if kept else []
    rows = ledger_rows.filled(ledger.ledger(None if whole else [model]), stored)
    if kept:
        ledger_rows.keep(Path(kept), rows, whole)
    failed = sum(row.failed for row in rows)
    if markdown:
        print(ledger.markdown(rows), end="")
        return failed
    table = Table("model", "oracle", "compared", "forward", "backward", title="Largest relative error")
    for row in rows:
        table.add_row(*map(escape, ledger.figures(row)))
    console.print(table)
    for reason in dict.fromkeys(row.reason for row in rows if row.oracle and row.reason):
        console.print(reason, style="yellow", markup=False)
    console.print(f"{sum(row.forward is not None for row in rows)} comparison(s) made, {failed} failed")
    return failed


COMMANDS = {"check": Command("hold a model, or your own file, to the contract", add_flags, check, "check mine.py")}
