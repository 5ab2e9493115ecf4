"""`bench.py export-data`: the sets of questions that a comparison draws, as files with a version, a hash and a Croissant card."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tasks
from results.plans.plan import Plan
from runner.commands.exports.results import new_folder
from runner.commands.shared.arguments import Command, add_comparison
from runner.commands.shared.comparison import loaded, shown
from schema import shortened, whole_file
from tasks.babilong.questions import SIMULATOR
from tasks.harness.records import is_generated, records
from tasks.task import Task
from tasks.text.corpus import EMBEDDED

MIT = "https://opensource.org/license/mit"
DATA, CARD = "questions.jsonl", "croissant.json"


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `export-data`."""
    add_comparison(command, "a comparison, whose tasks' test questions are written")
    command.add_argument("folder", help="a new folder; each set has a folder of its own in it")
    command.add_argument("--url", required=True, help="where the sets are, or will be, published; their cards say so")
    command.add_argument("--published", metavar="2026-01-31", help="the day of their publication")
    command.add_argument(
        "--license", metavar="URL", help="of the sets; default: MIT, where all they hold is this project's"
    )


def export_data(arguments: argparse.Namespace, console: Console) -> int:
    """Write each generated set of the comparison's tasks with its card; sets of running text are left out and named."""
    _, plan = loaded(arguments)
    _check_day(arguments.published)
    out, table = new_folder(arguments.folder), Table("set", "version", "questions", "SHA-256", box=None, pad_edge=False)
    asked = _sets(plan)
    licences = {name: _licence(task, arguments.license) for name, (_, task) in asked.items() if is_generated(task)}
    for name, (settings, task) in asked.items():
        if name not in licences:
            console.print(
                f"Left out: {name} asks running text, which is no set of this project's.", style="yellow", markup=False
            )
            continue
        card = _write(out / name, name, settings, task, licences[name], arguments)
        table.add_row(name, card["version"], f"{card['questions']:,}", card["digest"])
    if not licences:
        raise ValueError(f"{plan.comparison} draws no questions: nothing was written.")
    console.print(table)
    console.print(f"{len(licences)} set{'s' if len(licences) > 1 else ''} in {shown(out)}{_checked(out)}", markup=False)
    return 0


def _check_day(text: str | None) -> None:
    try:
        date.fromisoformat(text or "2026-01-31")
    except ValueError:
        raise ValueError(f"--published takes a day such as 2026-01-31, not {shortened(text)}.") from None


def _sets(plan: Plan) -> dict[str, tuple[dict[str, Any], Task]]:
    """The plan's tasks by the names of their sets, each with its settings; tasks of equal names are numbered."""
    found: dict[str, tuple[dict[str, Any], Task]] = {}
    for entry in plan.tasks:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", f"{plan.comparison}-{entry.name}").strip("-")
        twins = sum(name == stem or name.startswith(f"{stem}-") for name in found)
        found[f"{stem}-{twins + 1}" if twins else stem] = entry.settings, tasks.create(entry.name, **entry.settings)
    if not found:
        raise ValueError(f"{plan.comparison} has no task; it times models alone.")
    return found


def _licence(task: Task, given: str | None) -> str:
    """The licence of a set. Raises ValueError where it holds what is not this project's and none is given."""
    sources = {getattr(task, "corpus", EMBEDDED) or EMBEDDED, *getattr(task, "test_sources", ())} - {
        EMBEDDED,
        SIMULATOR,
    }
    if sources and not given:
        raise ValueError(
            f"{task.name} holds text of {', '.join(sorted(sources))}, whose licence is yours to say; add --license URL."
        )
    return given or MIT


def _write(
    folder: Path, name: str, settings: dict[str, Any], task: Task, licence: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """A set's file and its card."""
    from results.report.exports import croissant

    found = list(records(task))
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found).encode("utf-8")
    digest, about = hashlib.sha256(data).hexdigest(), tasks.describe(task.name)
    one = croissant.GeneratedSet(
        name, task.name, about, settings, task.exam_version, task.data_hash(), DATA, digest, len(data), found, licence,
        arguments.url, arguments.published or "",
    )  # fmt: skip
    card = croissant.document(one)
    whole_file.write(folder / DATA, data)
    whole_file.write(folder / CARD, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return {"version": card["version"], "questions": len(found), "digest": digest}


def _checked(out: Path) -> str:
    """What mlcroissant says of the cards, in words. Raises ValueError where it refuses one."""
    try:
        import mlcroissant
    except ImportError:
        return '; not validated, as mlcroissant is not installed (pip install -e ".[exports]")'
    for path in sorted(out.glob(f"*/{CARD}")):
        try:
            mlcroissant.Dataset(jsonld=path)
        except mlcroissant.ValidationError as error:
            raise ValueError(f"mlcroissant refuses {shown(path)}: {error}") from None
    return ", each card valid by mlcroissant"


COMMANDS = {
    "export-data": Command(
        "the questions that a comparison draws, each set with version, hash and Croissant card",
        add_flags,
        export_data,
        "export-data titans-table2 sets --url https://example.org/needles",
    )
}
