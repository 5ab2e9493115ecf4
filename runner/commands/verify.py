"""`bench.py verify` holds rows against what their predictions, or trainings once more, give."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from models import user_file
from results.cell import counted
from results.plans.plan import Plan
from results.rows import store, submission, verification
from runner.again import retrained
from runner.again.rebuilt import rebuild
from runner.again.rederived import rederive
from runner.checkpoints import model_files
from runner.commands.shared.arguments import Command, add_comparison, names_in
from runner.commands.shared.comparison import families, loaded, shown

ALL = "all"


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `verify`."""
    add_comparison(command, "a comparison that has rows and predictions")
    command.add_argument("--reference", action="store_true", help="the committed rows, with their hashes and tables")
    command.add_argument(
        "--train-again",
        metavar="N",
        help="train N trained cells again too, drawn at random (all: every one), and compare each digit; as long as their run",
    )
    command.add_argument(
        "--models",
        metavar="A,FILE",
        help="your file or package/ in which a model of yours is registered, which is run; with --train-again which to draw from",
    )


def _drawn(asked: str | None, rows: list[dict[str, Any]], models: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The rows of each cell that is trained again; none where nobody asks. Raises ValueError where the flag says no number."""
    if asked is None:
        return []
    if asked != ALL and (not asked.isdecimal() or int(asked) < 1):
        raise ValueError(f"--train-again takes a number of cells, 1 or more, or {ALL}, not {asked!r}.")
    return retrained.drawn(rows, None if asked == ALL else int(asked), models, random.Random())


def _models(arguments: argparse.Namespace) -> list[str]:
    """The models that --models names; its files are loaded. Raises ValueError for names where nothing is trained again."""
    names = names_in(arguments.models or "")
    files = [name for name in names if user_file.is_path(name)]
    model_files.name(files)
    own = [name for file in files for name in user_file.load_file(file)]
    chosen = [name for name in names if name not in files]
    if chosen and not arguments.train_again:
        raise ValueError(
            f"--models names {chosen[0]}, which is no path/to/file.py or package/; a model's name goes with --train-again."
        )
    return chosen + own if chosen or arguments.train_again else []


def verify(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a comparison's rows against what their predictions give when marked again; 1 where one differs."""
    models = _models(arguments)
    folder, plan = loaded(arguments)
    folder = folder / "reference" if arguments.reference else folder
    rows = store.read(folder / "rows.jsonl")
    if not rows:
        raise store.RecordError(f"There are no rows in {shown(folder)} to verify; run the comparison first.")
    chosen = _drawn(arguments.train_again, rows, models)  # what cannot be drawn is told before minutes of scoring
    with _counted(rows, console) as again:
        verdict = verification.verify(rows, folder / "predictions", again, rebuild, plan.comparison)
    differences = verdict.differences
    if arguments.reference:
        from results.report import report  # draws figures: most commands, and no worker, need matplotlib

        stale = report.stale_tables(rows, folder, families=families())
        differences = [*submission.differences(folder), *differences, *stale]
    for difference in differences:
        console.print(f"DIFFERS  {difference}", style="red", markup=False, soft_wrap=True)
    for reason, unknown in verdict.unknown.items():
        metrics = ", ".join(sorted({row["metric"] or "failed" for row in unknown}))
        console.print(f"not re-derived: {len(unknown)} rows ({metrics}): {reason}", markup=False, soft_wrap=True)
    for text, cells in verdict.notes.items():
        console.print(f"no difference: {text} ({counted(cells)})", markup=False, soft_wrap=True)
    unknown, earlier = (sum(map(len, found.values())) for found in (verdict.unknown, verdict.earlier))
    if earlier:
        named = "; ".join(f"{len(rows)} of {asked}" for asked, rows in verdict.earlier.items())
        console.print(f"measured under an earlier evaluation: {earlier} rows ({named}); they neither hold nor differ")
    console.print(f"{verdict.held} rows hold, {len(differences)} differences, {unknown} rows cannot be re-derived")
    faults = _train_again(chosen, plan, console) if chosen else 0
    return 1 if differences or faults else 0


def _train_again(chosen: list[list[dict[str, Any]]], plan: Plan, console: Console) -> int:
    """Train the cells of these rows again and print what came of each; how many differ though nothing is another than then."""
    repeats = retrained.train_again(chosen, plan.workers, plan.timeout)
    table = Table(
        Column("cell trained again", overflow="fold"), "numbers", "to the digit", "furthest apart", "not as then"
    )
    for repeat in repeats:
        same = repeat.numbers - len(repeat.apart)
        table.add_row(
            repeat.cell, str(repeat.numbers), str(same), repeat.furthest(), "; ".join(repeat.since) or "nothing"
        )
    console.print(table)
    console.print(retrained.counted(repeats), highlight=False)
    faults = sum(repeat.is_fault for repeat in repeats)
    if faults:
        console.print(
            f"DIFFERS  {counted(faults)} with other numbers by the same code on the same machine", style="red"
        )
    return faults


@contextmanager
def _counted(rows: list[dict[str, Any]], console: Console) -> Iterator[verification.Rederive]:
    """`rederive` with a bar of the cells that it was asked of: with the models that are built again it takes minutes for many."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        cells = bar.add_task("scoring again", total=len({row["cell"] for row in rows}))

        def again(mine: list[dict[str, Any]], kept: list[dict[str, Any]] | None) -> verification.Again:
            bar.advance(cells)
            return rederive(mine, kept)

        yield again


COMMANDS = {
    "verify": Command(
        "score a comparison's predictions again and hold every row against them",
        add_flags,
        verify,
        "verify quick --reference",
    )
}
