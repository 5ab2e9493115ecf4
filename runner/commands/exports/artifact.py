"""`bench.py artifact`: a comparison's appendix for an artifact committee, as Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from results.rows import store
from runner.commands.shared.arguments import Command, add_comparison
from runner.commands.shared.comparison import families, loaded, shown
from schema import whole_file


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `artifact`."""
    add_comparison(command, "a comparison that has rows")
    command.add_argument("--reference", action="store_true", help="of the committed rows, not of this machine's")
    command.add_argument("--output", metavar="FILE", help="write it there; default: print it")


def artifact(arguments: argparse.Namespace, console: Console) -> int:
    """Print or write which claim is shown by which command in how many minutes, and what to expect within which interval."""
    from results.report.pages import artifact as appendix

    folder, plan = loaded(arguments)
    source = folder / "reference" if arguments.reference else folder
    rows = store.read(source / "rows.jsonl", plan.comparison)
    if not rows:
        there = (folder / "reference" / "rows.jsonl.xz").exists() and not arguments.reference
        more = "; --reference takes the committed ones" if there else ""
        raise store.RecordError(f"There are no rows in {shown(source / 'rows.jsonl')}; run the comparison first{more}.")
    name, _, scale = plan.comparison.partition("/")
    called = f"{name} --scale {scale}" if scale else name
    asked = appendix.Asked(
        called, plan.title, plan.question, plan.claims, plan.workers, plan.schedule, arguments.reference
    )
    text = appendix.page(asked, rows, families())
    if not arguments.output:
        print(text, end="")
        return 0
    out = Path(arguments.output).expanduser()
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--output takes a file in a folder that is there, not {out}.")
    whole_file.write(out, text.encode("utf-8"))
    console.print(f"artifact appendix: {shown(out)}", markup=False)
    return 0


COMMANDS = {
    "artifact": Command(
        "a comparison's appendix for an artifact committee: claim, command, minutes, what to expect",
        add_flags,
        artifact,
        "artifact titans-table2 --reference --output appendix.md",
    )
}
