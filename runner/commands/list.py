"""What there is to measure, for `bench.py list`: models by family, and tasks."""

from __future__ import annotations

import inspect
import sys

from rich.table import Table

import tasks
from models import registry
from tasks.speed.throughput import Throughput


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
