"""What there is to measure, for `bench.py list`: models by family, and tasks."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import baselines
import tasks
from models import registry, user_file
from models.law import Law
from results.plans import reader
from results.plans.files import LAPTOP, scales
from runner import costs
from runner.commands import operations
from runner.commands.shared import comparison, terminal
from runner.commands.shared.arguments import Command, size_in
from schema import shortened
from tasks.speed.throughput import Throughput

CONTEXT = 1024  # tokens of which costs are told
WIDEST = 140  # columns of the laws
MARK = "*"
LEGEND = "our own reading, where the paper is silent, not causal, or has no code"


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `list`."""
    command.add_argument(
        "--markdown",
        nargs="?",
        const="laws",
        choices=MARKDOWN,
        help="the README's table of laws; `updates`: docs/models.md's; `operations`: docs/operations.md",
    )
    command.add_argument(
        "--costs", action="store_true", help="parameters, state bytes and FLOPs per token of every model"
    )
    command.add_argument("--plans", action="store_true", help="how each comparison decides, and what its claims lack")
    command.add_argument(
        "--operations", action="store_true", help="what a mixer can be made of: calls, shapes, providers"
    )
    command.add_argument("models", nargs="*", metavar="MODEL|FILE.py", help="with --costs: these alone, not all")
    command.add_argument("--size", metavar="width=256,depth=4,heads=4", help="with --costs: the size")
    command.add_argument("--length", type=int, metavar=str(CONTEXT), help="with --costs: tokens of context")


def list_all(arguments: argparse.Namespace, console: Console) -> int:
    """Show what there is: models by family with equation and paper, tasks, comparisons, files that failed to import."""
    _refuse_what_is_ignored(arguments)
    if arguments.markdown:
        print(MARKDOWN[arguments.markdown]())
        return 0
    if arguments.costs:
        names = [name for word in arguments.models for name in _named(word)] or None
        size = size_in(arguments.size) if arguments.size else {}
        console.print(costs.table(size, CONTEXT if arguments.length is None else arguments.length, names))
        return 0
    if arguments.plans:
        console.print(plans_table())
        return 0
    if arguments.operations:
        operations.show(console)
        return 0
    console.print(*laws(console.width), sep="\n")
    console.print(tasks_table())
    table = Table("comparison", "scales", "question", title="Comparisons")
    for name in reader.comparisons(comparison.RESULTS):
        table.add_row(name, ", ".join([LAPTOP, *scales(reader.folder_of(comparison.RESULTS, name))]), _question(name))
    console.print(table)
    for module, error in baselines.failures.items():
        console.print(f"not importable: {module}: {error}", style="red", markup=False)
    return 0


def _refuse_what_is_ignored(arguments: argparse.Namespace) -> None:
    """Raise ValueError for words that what is asked for does not read."""
    pages = [f"--{page}" for page in ("markdown", "costs", "plans", "operations") if getattr(arguments, page)]
    if len(pages) > 1:
        raise ValueError(f"list shows one page at a time: choose one of {', '.join(pages)}.")
    if arguments.costs:
        return
    flags = [f"--{flag}" for flag in ("size", "length") if getattr(arguments, flag) is not None]
    for word in [*map(shortened, arguments.models), *flags]:
        raise ValueError(f"list takes {word} with --costs alone; add that, or leave {word} out.")


def _named(word: str) -> list[str]:
    """The models that a word names: the registered one, or those of a path/to/file.py or package/. Raises UnknownModel."""
    return user_file.load_file(word) if user_file.is_path(word) else [registry.entry(word).name]


def _question(name: str) -> str:
    """What a comparison asks; of a broken plan, what is wrong with it, which stops no other."""
    try:
        return reader.load(reader.folder_of(comparison.RESULTS, name)).question
    except (ValueError, OSError) as error:
        return f"[red]not readable: {escape(terminal.told(error))}[/red]"


def plans_table() -> Table:
    """Of each comparison at laptop scale its seeds, claims, those of them without a margin or a control, and its pilot."""
    table = Table("comparison", "seeds", "claims", "no margin", "no control", "pilot", title="How comparisons decide")
    for name in reader.comparisons(comparison.RESULTS):
        try:
            plan = reader.load(reader.folder_of(comparison.RESULTS, name))
        except (ValueError, OSError) as error:
            table.add_row(name, f"[red]not readable: {escape(terminal.told(error))}[/red]")
            continue
        looks = [len(seeds) for seeds in plan.schedule.looks] if plan.schedule else [len(plan.seeds)]
        lacks = [str(sum(not getattr(claim, what) for claim in plan.claims)) for what in ("margin", "control")]
        pilot = "is one" if plan.is_pilot else plan.pilot or "none"
        table.add_row(
            name, ", ".join(map(str, looks)), str(len(plan.claims)), *(lacks if plan.claims else ["", ""]), pilot
        )
    return table


def laws(width: int) -> Iterator[RenderableType]:
    """Family by family, what every model forgets, compares, writes and reads, and what of it is a reading of ours."""
    yield Text("Models: S <- forget(S);  S <- S + write(v - compare(S));  y = read(S)", "italic")
    for family, entries in _by_family():
        yield Text(f"\n{family}", "bold")
        yield _columns(width, Law._fields, "dim")
        for entry in entries:
            yield Text.assemble(entry.name + (MARK if entry.reading else ""), "  ", (entry.paper, "dim"))
            yield _columns(width, entry.law)
        readings = [f"  {entry.name}: {entry.reading}" for entry in entries if entry.reading]
        if readings:
            yield Text("\n".join([f"{MARK} {LEGEND}:", *readings]), "dim")


def _columns(width: int, words: Iterable[str], style: str = "") -> RenderableType:
    """Four words in columns, the same in every line."""
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=True)
    grid.width = min(width, WIDEST)
    for share in (9, 7, 11, 9):
        grid.add_column(ratio=share)
    grid.add_row(*(Text(word, style) for word in words))
    return Padding(grid, (0, 0, 0, 2), expand=False)


def laws_markdown() -> str:
    """The README's table: the same, and the papers."""
    lines = [_row("model", *Law._fields, "paper"), _row(*["---"] * 6)]
    read = []
    for family, entries in _by_family():
        lines.append(_row(f"**{family}**", *[""] * 5))
        for entry in entries:
            mark = f"\\{MARK}" if entry.reading else ""
            lines.append(_row(f"`{entry.name}`{mark}", *entry.law, entry.paper))
            read += [f"- `{entry.name}`: {entry.reading}"] if entry.reading else []
    return "\n".join([*lines, "", f"\\{MARK} {LEGEND}:", "", *read])


def updates_markdown() -> str:
    """The table of docs/models.md: every model's update in one line."""
    lines = [_row("family", "model", "update", "paper"), _row(*["---"] * 4)]
    for family, entries in _by_family():
        lines += [_row(family, f"`{entry.name}`", entry.equation, entry.paper) for entry in entries]
    return "\n".join(lines)


MARKDOWN = {"laws": laws_markdown, "updates": updates_markdown, "operations": operations.markdown}


def _by_family() -> Iterator[tuple[str, list[registry.Entry]]]:
    """Families' titles and their models, in historical order."""
    entries = map(registry.entry, registry.names())
    for family, own in groupby(entries, key=lambda entry: entry.group):
        yield family.title, list(own)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
