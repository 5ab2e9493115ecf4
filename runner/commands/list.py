"""What there is to measure, for `bench.py list`: models by family, and tasks."""

from __future__ import annotations

import argparse
import inspect
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import baselines
import tasks
from models import registry, user_file
from results.plans import reader
from results.plans.files import LAPTOP, scales
from runner import costs
from runner.commands import comparison, terminal
from runner.commands.arguments import Command, size_in
from tasks.speed.throughput import Throughput


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `list`."""
    command.add_argument("--markdown", action="store_true", help="the table of docs/models.md")
    command.add_argument(
        "--costs", action="store_true", help="parameters, state bytes and FLOPs per token of every model"
    )
    command.add_argument("models", nargs="*", metavar="MODEL|FILE.py", help="with --costs: these alone, not all")
    command.add_argument("--size", metavar="width=256,depth=4,heads=4", help="with --costs: the size")
    command.add_argument("--length", type=int, default=1024, help="with --costs: tokens of context")


def list_all(arguments: argparse.Namespace, console: Console) -> int:
    """Show what there is: models by family with equation and paper, tasks, comparisons, files that failed to import."""
    if arguments.markdown:
        print(models_markdown())
        return 0
    if arguments.costs:
        names = [name for word in arguments.models for name in _named(word)] or None
        console.print(costs.table(size_in(arguments.size) if arguments.size else {}, arguments.length, names))
        return 0
    if arguments.models:
        raise ValueError(f"list takes {arguments.models[0]} with --costs alone; add it, or leave the name out.")
    console.print(models_table())
    console.print(tasks_table())
    table = Table("comparison", "scales", "question", title="Comparisons")
    for name in reader.comparisons(comparison.RESULTS):
        table.add_row(name, ", ".join([LAPTOP, *scales(reader.folder_of(comparison.RESULTS, name))]), _question(name))
    console.print(table)
    for module, error in baselines.failures.items():
        console.print(f"not importable: {module}: {error}", style="red", markup=False)
    return 0


def _named(word: str) -> list[str]:
    """The models that a word names: the registered one, or those of a path/to/file.py or package/. Raises UnknownModel."""
    return user_file.load_file(word) if user_file.is_path(word) else [registry.entry(word).name]


def _question(name: str) -> str:
    """What a comparison asks; of a broken plan, what is wrong with it, which stops no other."""
    try:
        return reader.load(reader.folder_of(comparison.RESULTS, name)).question
    except (ValueError, OSError) as error:
        return f"[red]not readable: {escape(terminal.told(error))}[/red]"


def models_table() -> Table:
    """Every model with its family, equation and paper."""
    table = Table("model", "family", "equation", "paper", title="Models")
    for entry in map(registry.entry, registry.names()):
        table.add_row(entry.name, entry.family.replace("_", " "), entry.equation, entry.paper)
    return table


def models_markdown() -> str:
    """The same as the README shows it."""
    lines = ["| family | model | update | paper |", "| --- | --- | --- | --- |"]
    for entry in map(registry.entry, registry.names()):
        equation = entry.equation.replace("|", "\\|")
        lines.append(f"| {entry.family.replace('_', ' ')} | `{entry.name}` | {equation} | {entry.paper} |")
    return "\n".join(lines)


def tasks_table() -> Table:
    """Every task and what it asks."""
    table = Table("task", "what it asks", title="Tasks")
    for name in tasks.names():
        table.add_row(name, tasks.describe(name))
    table.add_row("throughput", (inspect.getdoc(sys.modules[Throughput.__module__]) or "").splitlines()[0])
    return table


COMMANDS = {
    "list": Command(
        "models by family, tasks, comparisons; what models cost", add_flags, list_all, "list --costs retnet mine.py"
    )
}
