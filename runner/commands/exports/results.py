"""`bench.py export-results`: a comparison's rows in the forms of other projects."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from results.rows import store
from runner.commands.shared.arguments import Command, add_comparison
from runner.commands.shared.comparison import families, loaded, shown
from schema import whole_file

EVERY_EVAL_EVER, HUGGING_FACE = "every-eval-ever", "hugging-face"


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `export-results`."""
    add_comparison(command, "a comparison that has rows")
    command.add_argument("folder", help="a new folder for the files")
    command.add_argument(
        "--format",
        required=True,
        choices=(EVERY_EVAL_EVER, HUGGING_FACE),
        help="JSON of the datastore Every Eval Ever, or .eval_results of a model's repository on the hub",
    )
    command.add_argument("--reference", action="store_true", help="the committed rows, not this machine's")
    command.add_argument(
        "--dataset", metavar="OWNER/NAME", help="with hugging-face: the hub's dataset whose leaderboard it is"
    )
    command.add_argument("--revision", metavar="HASH", help="with hugging-face: that dataset's revision")
    command.add_argument("--source", metavar="URL", help="with hugging-face: where the rows are published")


def export_results(arguments: argparse.Namespace, console: Console) -> int:
    """Write the files; nothing is sent anywhere."""
    from results.report.evaluations import grouped
    from results.report.exports import every_eval_ever, hugging_face
    from results.report.families import Families

    folder, plan = loaded(arguments)
    out = new_folder(arguments.folder)
    given = [f"--{name}" for name in ("dataset", "revision", "source") if getattr(arguments, name)]
    if arguments.format == EVERY_EVAL_EVER and given:
        raise ValueError(f"{given[0]} says something of the hub; add --format {HUGGING_FACE}, or leave it out.")
    if arguments.format == HUGGING_FACE and not arguments.dataset:
        raise ValueError(
            "--format hugging-face needs --dataset OWNER/NAME, the hub's dataset whose leaderboard shows the scores."
        )
    source = folder / "reference" if arguments.reference else folder
    rows = store.read(source / "rows.jsonl", plan.comparison)
    evaluations = grouped(rows, Families(families()))
    if arguments.format == EVERY_EVAL_EVER:
        files = every_eval_ever.files(plan.comparison, evaluations, time.time())
    else:
        board = hugging_face.Board(arguments.dataset, arguments.revision or "", arguments.source or "")
        files = hugging_face.files(plan.comparison, evaluations, board)
    if not files:
        raise store.RecordError(f"There are no scores in {shown(source / 'rows.jsonl')}; run the comparison first.")
    for name, text in files.items():
        whole_file.write(out / name, text.encode("utf-8"))
    console.print(f"{len(files)} files in {shown(out)}", markup=False, highlight=False)
    return 0


def new_folder(name: str) -> Path:
    """The folder that is named; ValueError where something lies in it already."""
    out = Path(name).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{shown(out)} is not empty; name a new folder, so that nothing of another export stays in it."
        )
    return out


COMMANDS = {
    "export-results": Command(
        "a comparison's scores as Every Eval Ever JSON, or as the hub's .eval_results",
        add_flags,
        export_results,
        "export-results quick scores --format every-eval-ever --reference",
    )
}
