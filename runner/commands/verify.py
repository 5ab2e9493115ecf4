"""A cell's numbers once more: scored again from predictions, computed again, or of a benchmark taken from its rounds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from rich.console import Console
from rich.progress import Progress

import tasks
from models import user_file
from results.rows import labels, store, submission, verification
from results.rows.row import FLOOR_FAMILY, canonical, cell_of_row, exam_of
from runner.cell_key import contest_code, identify
from runner.commands.arguments import Command, add_comparison, add_model_files, model_files_of
from runner.commands.comparison import families, loaded, shown
from runner.rebuilt import rebuild
from tasks.harness import predictions
from tasks.speed import contest
from tasks.speed.throughput import from_samples


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `verify`."""
    add_comparison(command, "a comparison that has rows and predictions")
    command.add_argument("--reference", action="store_true", help="the committed rows, with their hashes and tables")
    add_model_files(command)


def verify(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a comparison's rows against what their predictions give when marked again; 1 where one differs."""
    user_file.load_files(model_files_of(arguments))
    folder, plan = loaded(arguments)
    folder = folder / "reference" if arguments.reference else folder
    rows = store.read(folder / "rows.jsonl")
    if not rows:
        raise store.RecordError(f"There are no rows in {shown(folder)} to verify; run the comparison first.")
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
        console.print(f"no difference: {text} ({cells} cells)", markup=False, soft_wrap=True)
    unknown, earlier = (sum(map(len, found.values())) for found in (verdict.unknown, verdict.earlier))
    if earlier:
        named = "; ".join(f"{len(rows)} of {asked}" for asked, rows in verdict.earlier.items())
        console.print(f"measured under an earlier evaluation: {earlier} rows ({named}); they neither hold nor differ")
    console.print(f"{verdict.held} rows hold, {len(differences)} differences, {unknown} rows cannot be re-derived")
    return 1 if differences else 0


@contextmanager
def _counted(rows: list[dict[str, Any]], console: Console) -> Iterator[verification.Rederive]:
    """`rederive` with a bar of the cells that it was asked of: with the models that are built again it takes minutes for many."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        cells = bar.add_task("scoring again", total=len({row["cell"] for row in rows}))

        def again(mine: list[dict[str, Any]], kept: list[dict[str, Any]] | None) -> verification.Again:
            bar.advance(cells)
            return rederive(mine, kept)

        yield again


def rederive(rows: list[dict[str, Any]], kept: list[dict[str, Any]] | None) -> verification.Again:
    """The numbers of one cell: scored again from its predictions, computed again, or of a benchmark from its rounds.

    Nothing is scored again of a cell that was measured under another version of the task's evaluation.
    """
    row, is_floors = rows[0], rows[0]["family"] == FLOOR_FAMILY
    if labels.is_contest(row["settings"]["task"]):
        same_code = contest_code(map(cell_of_row, rows)) == row["code_hash"]
        return verification.Again(_from_rounds(rows), "itself a sample, or measured once", same_code, "samples")
    try:
        identity = identify(cell_of_row(row))
    except (ValueError, LookupError, OSError, ImportError) as error:
        return verification.Again([], f"the task cannot be set here: {error}", same_code=False)
    about = {"same_code": identity.code_hash == row["code_hash"], "exam": identity.exam}
    if identity.exam != exam_of(row):
        return verification.Again([], "", **about)
    if not is_floors and kept is None:
        return verification.Again([], "no predictions were kept", **about)
    if not is_floors and not row["budget"]:
        found = [(row["model"], *m) for m in from_samples(kept)]
        return verification.Again(found, "measured once, without samples", **about)
    if identity.data_hash != row["data_hash"]:
        return verification.Again([], "the task's data here are not those that were asked", **about)
    task, exams = _asked(row["task"], canonical(row["settings"]["task"]), is_floors)
    if is_floors:
        found = [(name, *m) for name, measurements in task.floors().items() for m in measurements]
    else:
        found = [(row["model"], *m) for m in predictions.mark(task, exams, kept)]
    return verification.Again(found, "measured once", **about)


def _from_rounds(rows: list[dict[str, Any]]) -> list[verification.Number]:
    """Spreads and ratios of a side-by-side benchmark's candidates, from the rows that hold one round each."""
    rounds: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if row["metric"].endswith(contest.SAMPLE):
            place = {name: value for name, value in row["where"].items() if name != "round"}
            of_metric = rounds.setdefault((row["metric"].removesuffix(contest.SAMPLE), canonical(place)), {})
            of_metric.setdefault(labels.name_of(row), []).append((row["where"]["round"], row["value"]))
    reference = rows[0]["settings"]["task"]["reference"]
    found: list[verification.Number] = []
    for (metric, place), of_entrants in rounds.items():
        samples = {name: [seconds for _, seconds in sorted(numbered)] for name, numbered in of_entrants.items()}
        again = contest.clocked_rounds(metric, samples, reference, json.loads(place))
        found += [(name, *measurement) for name, measurement in again]
    return found


@lru_cache(maxsize=1)  # cells of one task follow one another
def _asked(name: str, settings: str, floors: bool) -> tuple[tasks.Task, list[Any]]:
    task = tasks.create(name, **json.loads(settings))
    return task, [] if floors else list(task.exams("test"))


COMMANDS = {
    "verify": Command(
        "score a comparison's predictions again and hold every row against them",
        add_flags,
        verify,
        "verify quick --reference",
    )
}
