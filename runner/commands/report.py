"""`bench.py report` draws a comparison's tables and figures from its rows; `bench.py submit` makes them the reference."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from models import registry
from results.cell import counted
from results.plans import reader
from results.plans.files import file_of
from results.plans.plan import Plan
from results.report.families import Families
from results.rows import committed, store, submission
from runner.cell_key import identify
from runner.commands.shared.arguments import Command, add_comparison, add_with_committed, names_in
from runner.commands.shared.comparison import RESULTS, cells, committed_rows, families, loaded, shown
from schema import shortened, suggestion

OVERVIEW = RESULTS / "overview"


def add_report_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `report`."""
    add_comparison(command, "a comparison that has rows", may_lack=True)
    command.add_argument("--all", action="store_true", help="one page over all comparisons instead of one of them")
    command.add_argument("--reference", action="store_true", help="redraw the committed reference instead")
    add_with_committed(command)
    command.add_argument("--show", metavar="A,B", help="models that figures draw in colour however many there are")
    command.add_argument("--width", choices=("page", "column"), default="page", help="of the figures; default: page")
    command.add_argument("--adopt", action="store_true", help="the same as submit")


def add_submit_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `submit`."""
    add_comparison(command, "a comparison whose plan is measured here as a whole")


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Redraw a comparison's tables and figures from its stored rows, or one page over all comparisons."""
    if arguments.all != (arguments.comparison is None):
        raise ValueError("report takes the name of a comparison, or --all for one page over all of them.")
    if arguments.all:
        return overview(arguments, console)
    folder, plan = loaded(arguments)
    if arguments.adopt:
        return submit(arguments, console)
    if arguments.reference and arguments.with_committed:
        raise ValueError("--reference shows the committed rows alone; leave out --with-committed.")
    folder = folder / "reference" if arguments.reference else folder
    draw(plan, folder, None, console, arguments.with_committed, names_in(arguments.show or ""), arguments.width)
    return 0


def overview(arguments: argparse.Namespace, console: Console) -> int:
    """Draw one page over the rows of all comparisons: this machine's, or with --reference the committed ones."""
    from results.report.overview import page

    out = OVERVIEW if arguments.reference else OVERVIEW / "report"
    found = [
        source for name in reader.comparisons(RESULTS) if (source := _source(name, arguments.reference, out, console))
    ]
    fixed = [name for name in registry.names() if registry.entry(name).says("fixed_state", {}, False)]
    console.print(f"overview: {shown(page.write(found, out, fixed))}")
    return 0


def _source(name: str, is_reference: bool, out: Path, console: Console) -> Any:
    """What the overview takes of a comparison; None where it has no rows, or rows that cannot be read, which is said."""
    from results.report.evaluations import grouped
    from results.report.findings.claims import judge
    from results.report.overview.matrix import Source

    folder = reader.folder_of(RESULTS, name)
    try:
        plan = reader.load(folder)
        folder = folder / "reference" if is_reference else folder
        rows = store.read(folder / "rows.jsonl", plan.comparison)
    except (store.RecordError, reader.PlanError) as error:
        console.print(f"Going on without {name}: {error}", style="yellow", markup=False, soft_wrap=True)
        return None
    if not rows or plan.is_pilot:  # a pilot chooses questions, and answers none
        return None
    evaluations = tuple(grouped(rows, Families(families())))
    drawn = folder if is_reference else folder / "report"
    verdicts = tuple(judge(plan.claims, evaluations, plan.schedule))
    return Source(name, plan.title, os.path.relpath(drawn / "report.md", out), evaluations, verdicts)


def submit(arguments: argparse.Namespace, console: Console) -> int:
    """Make this machine's rows of the plan's cells the reference, with plan, raw predictions and hashes; draw it."""
    folder, plan = loaded(arguments)
    measured = store.read(folder / "rows.jsonl", plan.comparison)
    keys = {identify(cell).key for cell in cells(plan, measured)}
    rows = [row for row in measured if row["cell"] in keys]
    missing = len(keys - {row["cell"] for row in rows})
    if missing:
        raise ValueError(
            f"{counted(missing)} of {plan.comparison} still to be measured here; run it before submitting it."
        )
    packed = submission.pack(folder, file_of(folder), rows)
    console.print(f"{packed.rows} rows and the predictions of {counted(packed.cells)} in {shown(folder / 'reference')}")
    for reason in dict.fromkeys(packed.left_out.values()):
        without = [cell for cell, why in packed.left_out.items() if why == reason]
        console.print(f"{counted(len(without))} without predictions: {reason}", style="yellow", markup=False)
    draw(plan, folder / "reference", None, console)
    return 0


def draw(
    plan: Plan,
    folder: Path,
    keys: set[str] | None,
    console: Console,
    with_committed: bool = False,
    show: Sequence[str] = (),
    width: str = "page",
) -> None:
    """Draw the report of the rows in `folder`; with `keys`, of those cells only, so that stale rows stay out.

    A run of a part passes the keys of the whole plan too: a new model stands beside the ones measured before it. `show`
    names models that are in colour beside those of the plan; ValueError for one without rows.
    """
    from results.report import curves, report  # draws figures: most commands, and no worker, need matplotlib
    from results.report.tables import contest_table

    rows = store.read(folder / "rows.jsonl", plan.comparison)
    if not rows:
        raise store.RecordError(f"There are no rows in {shown(folder / 'rows.jsonl')}; run the comparison first.")
    if keys is not None:
        rows = [row for row in rows if row["cell"] in keys]
    is_reference = folder.name == "reference"
    reference = [] if is_reference else committed_rows(folder, console)
    if with_committed:
        rows, own = committed.beside(rows, reference), len(rows)
        console.print(f"{len(rows) - own} committed rows stand beside {own} of this machine")
        if reference and len(rows) == own:
            console.print(f"None was measured as yours: {committed.what_differs(rows, reference)}.")
    check_shown(show, rows)
    out = folder if is_reference else folder / "report"
    asked = {
        "claims": plan.claims,
        "schedule": plan.schedule,
        "tables": plan.printed,
        "forms": plan.figures,
        "show": (*plan.show, *show),
        "opens_with": plan.opens_with,
    }
    about = {"title": plan.title, "question": plan.question, "families": families(), "width": width}
    about["curves"] = folder / curves.FOLDER
    if plan.is_pilot:
        asked["sections"] = _passing(rows, console)
    page = report.report(rows, out, reference=reference, **about, **asked)
    if is_reference:
        submission.seal(folder)
    for part in contest_table.terminal(rows):
        console.print(part, highlight=False)
    console.print(f"report: {shown(page)}")


def _passing(rows: Sequence[dict[str, Any]], console: Console) -> list[Any]:
    """Which difficulty of a pilot passes, as a section of its report; the terminal is told as well."""
    from results.report.evaluations import grouped
    from results.report.findings import difficulty
    from results.report.section import Section

    evaluations = grouped(rows, Families(families()))
    for one in difficulty.difficulties(evaluations):
        console.print(one.told, highlight=False, markup=False, soft_wrap=True)
    return [Section("Which difficulty passes", difficulty.markdown(evaluations))]


def check_shown(show: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """ValueError for a name that no row has."""
    known = sorted({name for row in rows for name in (row["model"], row["settings"].get("variant")) if name})
    for name in show:
        if name not in known:
            raise ValueError(f"--show names {shortened(name)}, of which there are no rows{suggestion(name, known)}.")


COMMANDS = {
    "report": Command(
        "redraw tables and figures from the stored rows, of one comparison or over all",
        add_report_flags,
        report,
        "report quick --reference",
    ),
    "submit": Command(
        "make this machine's rows the reference: rows, plan, predictions, hashes",
        add_submit_flags,
        submit,
        "submit quick",
    ),
}
