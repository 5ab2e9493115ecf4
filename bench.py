"""The hall: the command line. What turns a cell into rows stands in measuring/.

python bench.py list [--costs [MODEL|FILE.py ...]]  models by family, tasks, comparisons; what models cost
python bench.py run COMPARISON            measure what is missing, then draw the report
python bench.py report COMPARISON         redraw tables and figures from the stored rows
python bench.py submit COMPARISON         pack plan, rows and raw predictions for others, and draw their report
python bench.py verify COMPARISON         mark the predictions again and hold every row against them
python bench.py check MODEL|FILE.py|all   hold a model, or your own file, to the contract
python bench.py check --parity            hold the models to other people's code
python bench.py profile MODEL             where the time of a training step goes, by kind of work and operator
python bench.py zero-shot CHECKPOINT      ask a kept model in lm-evaluation-harness
python bench.py ask MODEL TASK            a kept model, or one of Hugging Face, sits the test of a task here
python bench.py show TASK                 print one of a task's questions, the facts that matter marked
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import baselines
import tasks
from measuring import capacity, checked, checkpoints, costs, own_files
from measuring.asked import asked_table
from measuring.building import sized
from measuring.cells import measure, prepare, with_own_files
from measuring.identity import identify, keys_among
from measuring.learning import Keeping
from measuring.listed import models_markdown, models_table, tasks_table
from measuring.profiled import VOCABULARY, profile_table
from measuring.rebuilt import rebuild
from measuring.rederived import rederive
from measuring.refusals import check_cells
from measuring.zero_shot import zero_shot_table
from models import check, kernels, registry, surroundings, user_file
from results import (
    command_line,
    committed,
    contest_table,
    overrides,
    record,
    schedule,
    search,
    submission,
    terminal,
    verification,
)
from results import plan as plans
from results.forecast import TIMES, forecast, matched, timings
from results.plan import Cell, Plan
from results.plan_files import LAPTOP, scales
from results.progress import Display
from results.ray_cluster import RayCluster
from schema import checkout
from tasks import cache, sample

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"


def command_list(arguments: argparse.Namespace, console: Console) -> int:
    """Show what there is: models by family with equation and paper, tasks, comparisons, files that failed to import."""
    if arguments.markdown:
        print(models_markdown())
        return 0
    if arguments.costs:
        names = [name for word in arguments.models for name in _named(word)] or None
        console.print(costs.table(overrides.size(arguments.size) if arguments.size else {}, arguments.length, names))
        return 0
    if arguments.models:
        raise ValueError(f"list takes {arguments.models[0]} with --costs alone; add it, or leave the name out.")
    console.print(models_table())
    console.print(tasks_table())
    table = Table("comparison", "scales", "question", title="Comparisons")
    for name in plans.comparisons(RESULTS):
        table.add_row(name, ", ".join([LAPTOP, *scales(RESULTS / name)]), _question(name))
    console.print(table)
    for module, error in baselines.failures.items():
        console.print(f"not importable: {module}: {error}", style="red", markup=False)
    return 0


def _named(word: str) -> list[str]:
    """The models that a word names: the registered one, or those of a path/to/file.py. Raises UnknownModel."""
    return user_file.load_file(word) if word.endswith(".py") else [registry.entry(word).name]


def _question(name: str) -> str:
    """What a comparison asks; of a broken plan, what is wrong with it, which stops no other."""
    try:
        return plans.load(RESULTS / name).question
    except (ValueError, OSError) as error:
        return f"[red]not readable: {escape(terminal.told(error))}[/red]"


def command_run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure the cells of a comparison that are missing, and draw its report."""
    plan = _plan(arguments)
    rows_path = RESULTS / plan.comparison / "rows.jsonl"
    here = record.read(rows_path, plan.comparison)
    if arguments.dry_run:  # which reads and downloads no data
        cells = _cells(plan, here, keys_among(here))
    else:
        cells = _cells(plan, here)
    elsewhere = arguments.dry_run or arguments.launcher == "ray"
    with surroundings.kept():  # a user's constructor may change what the workers inherit
        check_cells(cells, elsewhere=elsewhere, unread=arguments.dry_run)
    keeping = None if arguments.no_checkpoints else Keeping(checkpoints.default_folder(), plan.snapshot_minutes)
    if arguments.dry_run:
        past = timings(RESULTS) + _reference(rows_path.parent, console, TIMES) + here
        return _dry_run(plan, cells, here, past, keeping, console)
    begun = time.monotonic()
    with _cluster(arguments) as cluster, Display(len(cells), quiet=arguments.quiet) as display:
        summary = schedule.Summary()
        for are_trials in (True, False):  # trials first: they say which rate the others are trained at
            cells = _cells(plan, record.read(rows_path))
            summary += schedule.run(
                [cell for cell in cells if (cell.kind == "trial") == are_trials],
                partial(measure, keeping=keeping),
                identify,
                rows_path,
                workers=plan.workers,
                timeout=plan.timeout,
                retry_failed=arguments.retry_failed,
                initializer=prepare,
                on_event=display.tell,
                cluster=cluster,
            )
    console.print(
        f"{summary.measured} cells measured, {summary.skipped} already there, {summary.failed} failed, "
        f"in {time.monotonic() - begun:.0f} s; rows in {_shown(rows_path)}"
    )
    whole = _cells(plans.load(RESULTS / plan.comparison), record.read(rows_path))
    keys = {identify(cell).key for cell in [*whole, *cells]}
    _report(plan, RESULTS / plan.comparison, keys, console, arguments.with_committed)
    return 1 if summary.failed else 0


def _cluster(arguments: argparse.Namespace) -> AbstractContextManager[RayCluster | None]:
    """The machines that measure, None for this one."""
    if arguments.launcher == "ray":
        return RayCluster(arguments.ray_address, arguments.workers)
    if arguments.ray_address:
        raise ValueError("--ray-address names a cluster that only --launcher ray uses; add that flag.")
    return nullcontext()


def _dry_run(plan: Plan, cells: list[Cell], here: list, past: list, keeping: Keeping | None, console: Console) -> int:
    """Print what a run would do and cost."""
    done, key, known = record.statuses(here), keys_among(here), partial(costs.of_cell, keeping=keeping, past=past)
    with surroundings.kept():  # a user's code is asked what it costs
        table, line = forecast(plan, cells, lambda cell: done.get(key(cell)) if done else None, past, known)
    console.print(table)
    if (standings := matched(plan, cells, known)) is not None:
        console.print(standings)
    console.print(line, highlight=False, markup=False)
    return 0


def _key(cell: Cell) -> str:
    return identify(cell).key


def _cells(plan: Plan, rows: Sequence[dict[str, Any]], key: Callable[[Cell], str] = _key) -> list[Cell]:
    """The plan's cells, those whose learning rate is searched for at the rate that the trials among `rows` chose."""
    of_exams = {name: getattr(registry.entry(name).cls, "exam_settings", ()) for name in registry.names()}
    cells = with_own_files(plans.cells(plan, registry.names(), of_exams))
    if plan.search is None:
        return cells
    return search.chosen(plan.search, cells, rows, key, of_exams)


def command_report(arguments: argparse.Namespace, console: Console) -> int:
    """Redraw a comparison's tables and figures from its stored rows."""
    folder, plan = _loaded(arguments)
    if arguments.adopt:
        return command_submit(arguments, console)
    if arguments.reference and arguments.with_committed:
        raise ValueError("--reference shows the committed rows alone; leave out --with-committed.")
    folder = folder / "reference" if arguments.reference else folder
    _report(plan, folder, None, console, arguments.with_committed)
    return 0


def command_submit(arguments: argparse.Namespace, console: Console) -> int:
    """Make this machine's rows of the plan's cells the reference, with plan, raw predictions and hashes; draw it."""
    folder, plan = _loaded(arguments)
    measured = record.read(folder / "rows.jsonl", plan.comparison)
    keys = {identify(cell).key for cell in _cells(plan, measured)}
    rows = [row for row in measured if row["cell"] in keys]
    missing = len(keys - {row["cell"] for row in rows})
    if missing:
        raise ValueError(f"{missing} cells of {plan.comparison} are not measured here; run it before submitting it.")
    packed = submission.pack(folder, rows)
    console.print(f"{len(rows)} rows and the predictions of {packed.cells} cells in {_shown(folder / 'reference')}")
    for reason in dict.fromkeys(packed.left_out.values()):
        cells = [cell for cell, why in packed.left_out.items() if why == reason]
        console.print(f"{len(cells)} cells without predictions: {reason}", style="yellow", markup=False)
    _report(plan, folder / "reference", None, console)
    return 0


def command_verify(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a comparison's rows against what their predictions give when marked again; 1 where one differs."""
    folder, plan = _loaded(arguments)
    comparison = plan.comparison
    folder = folder / "reference" if arguments.reference else folder
    rows = record.read(folder / "rows.jsonl")
    if not rows:
        raise record.RecordError(f"There are no rows in {_shown(folder)} to verify; run the comparison first.")
    verdict = verification.verify(rows, folder / "predictions", rederive, rebuild, comparison)
    differences = verdict.differences
    if arguments.reference:
        from results import report  # draws figures: most commands, and no worker, need matplotlib

        stale = report.stale_tables(rows, folder)
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
        console.print(f"measured under an earlier exam: {earlier} rows ({named}); they neither hold nor differ")
    console.print(f"{verdict.held} rows hold, {len(differences)} differences, {unknown} rows cannot be re-derived")
    return 1 if differences else 0


def _report(plan: Plan, folder: Path, keys: set[str] | None, console: Console, with_committed: bool = False) -> None:
    """Draw the report of the rows in `folder`; with `keys`, of those cells only, so that stale rows stay out.

    A run of a part passes the keys of the whole plan too: a new model stands beside the ones measured before it.
    """
    from results import report  # draws figures: most commands, and no worker, need matplotlib

    rows = record.read(folder / "rows.jsonl", plan.comparison)
    if not rows:
        raise record.RecordError(f"There are no rows in {_shown(folder / 'rows.jsonl')}; run the comparison first.")
    if keys is not None:
        rows = [row for row in rows if row["cell"] in keys]
    is_reference = folder.name == "reference"

    reference = [] if is_reference else _reference(folder, console)
    if with_committed:
        rows, own = committed.beside(rows, reference), len(rows)
        console.print(f"{len(rows) - own} committed rows stand beside {own} of this machine")
    out = folder if is_reference else folder / "report"
    shown = {"claims": plan.claims, "tables": plan.printed, "forms": plan.figures}
    page = report.report(rows, out, title=plan.title, question=plan.question, reference=reference, **shown)
    if is_reference:
        submission.seal(folder)
    for part in contest_table.terminal(rows):
        console.print(part, highlight=False)
    console.print(f"report: {_shown(page)}")


def _reference(folder: Path, console: Console, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The committed rows of a comparison's folder; none, and a sentence on it, where they cannot be read."""
    try:
        return record.read(folder / "reference" / "rows.jsonl", metrics=metrics)
    except record.RecordError as error:
        console.print(f"Going on without the committed rows: {error}", style="yellow", markup=False, soft_wrap=True)
        return []


def command_check(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a registered model, the models of a file, or all of them to the contract; print one line a property."""
    if arguments.parity:
        return 1 if checked.parity(arguments.model, arguments.rows, arguments.markdown, console) else 0
    if arguments.model is None:
        raise ValueError("Say what to check: a registered name, a path/to/file.py, or all; or give --parity.")
    names = registry.names() if arguments.model == "all" else [arguments.model]
    if arguments.model.endswith(".py"):
        names = user_file.load_file(arguments.model)
    settings = overrides.settings(arguments.set)
    if set(settings) - set(names):
        raise ValueError(f"--set names {', '.join(sorted(set(settings) - set(names)))}, which is not checked here.")
    size = sized(asdict(check.TINY), overrides.size(arguments.size) if arguments.size else {})
    return 1 if checked.contract(names, settings, arguments.thorough, console, size) else 0


def command_show(arguments: argparse.Namespace, console: Console) -> int:
    """Print one question of a task: settings, text with what matters marked, answer."""
    settings = _settings_of(arguments, "shown")
    task = tasks.create(arguments.task, **settings)
    console.print(sample.render(task, settings, arguments.split, arguments.number, arguments.whole), soft_wrap=True)
    return 0


def command_ask(arguments: argparse.Namespace, console: Console) -> int:
    """Print what a trained model, kept here or of Hugging Face, scores on the test of a task."""
    asked = arguments.gguf, arguments.provider, arguments.device, _model_files(arguments)
    console.print(asked_table(arguments.model, arguments.task, _settings_of(arguments, "asked"), *asked))
    return 0


def _settings_of(arguments: argparse.Namespace, done: str) -> dict[str, Any]:
    """The settings that --set gives the one task of a command."""
    every = overrides.settings(arguments.set)
    if others := set(every) - {arguments.task}:
        raise ValueError(
            f"--set names {', '.join(sorted(others))}, but {arguments.task} is {done}: set {arguments.task}.X."
        )
    return every.get(arguments.task, {})


def command_profile(arguments: argparse.Namespace, console: Console) -> int:
    """Print where the time of a model's or an opponent's training step goes."""
    if arguments.model.endswith(".py"):
        arguments.model, *others = user_file.load_file(arguments.model)
        if others:
            raise ValueError(
                f"The file registers {arguments.model} and {', '.join(others)}; profile takes a file of one model."
            )
    every = overrides.settings(arguments.set)
    if others := set(every) - {arguments.model}:
        raise ValueError(f"--set names {', '.join(sorted(others))}, but {arguments.model} is profiled.")
    capacity.check_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    fields = {"vocab": VOCABULARY, "width": 256, "depth": 1, "heads": 4}
    size = sized(fields, overrides.size(arguments.size) if arguments.size else {})
    shape = (arguments.length, arguments.batch)
    console.print(profile_table(arguments.model, size, *shape, every.get(arguments.model, {}), arguments.dtype))
    return 0


def command_zero_shot(arguments: argparse.Namespace, console: Console) -> int:
    """Ask a kept model the tasks of lm-evaluation-harness, those of the Titans paper's first table unless others are named."""
    asked = arguments.provider, arguments.device, arguments.limit, arguments.include, _model_files(arguments)
    console.print(zero_shot_table(arguments.checkpoint, overrides.names(arguments.tasks or ""), *asked))
    return 0


def _model_files(arguments: argparse.Namespace) -> list[str]:
    """The user's files that a kept model may come from."""
    if arguments.models is None:
        return []
    files = overrides.names(arguments.models)
    if not files or not all(file.endswith(".py") for file in files):
        raise ValueError("--models names no Python file here; give the path/to/file.py that registers the kept model.")
    own_files.name(files)
    return files


def _loaded(arguments: argparse.Namespace) -> tuple[Path, Plan]:
    """The folder of the comparison that is named, and its plan."""
    folder = plans.folder_of(RESULTS, arguments.comparison)
    every = None if baselines.failures else registry.names()  # a file that fails to import refuses no claim
    return folder, plans.load(folder, every)


def _plan(arguments: argparse.Namespace) -> Plan:
    """The comparison's plan with the command line's changes."""
    _, plan = _loaded(arguments)
    names = overrides.names(arguments.models or "")
    files = [name for name in names if name.endswith(".py")]
    own = [name for file in files for name in user_file.load_file(file)]
    own_files.name(files)
    chosen = [name for name in names if name not in files] + own
    return plan.with_overrides(**command_line.changes(arguments, chosen, files))


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: done, but a cell failed or a row differs; 2: refused in one sentence; 130: Ctrl-C.

    A fault of the program is 2 as well, and its one line says where it lies and how to get the traceback.
    """
    actions = {
        "list": command_list,
        "run": command_run,
        "report": command_report,
        "submit": command_submit,
        "verify": command_verify,
        "check": command_check,
        "profile": command_profile,
        "ask": command_ask,
        "show": command_show,
        "zero-shot": command_zero_shot,
    }
    console = terminal.console()
    if lacks := checkout.absent(ROOT):
        print(f"bench.py: {lacks}", file=sys.stderr)
        return 2
    try:
        parsed = command_line.parsed(command_line.parser(__doc__, actions, kernels.PROVIDERS), arguments)
        if getattr(parsed, "cache", None):
            os.environ[cache.VARIABLE] = str(Path(parsed.cache).expanduser().resolve())  # for the workers too
        with user_file.no_exit():
            return parsed.action(parsed, console)
    except KeyboardInterrupt:
        print("Stopped; what was measured is kept, run the same command to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get(terminal.TRACE):
            raise
        print(f"bench.py: {user_file.blamed(error) or terminal.told(error)}", file=sys.stderr)
        return 2
    except BaseException as error:  # whatever else a user's own file raises, sys.exit(0) too
        if (said := user_file.blamed(error)) is None or os.environ.get(terminal.TRACE):
            raise
        print(f"bench.py: {said}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
