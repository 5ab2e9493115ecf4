"""`bench.py run` measures what is missing in a comparison, then draws its report; with --dry-run it says what that would cost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from results.cell import Cell, counted
from results.plans.files import folder_of
from results.plans.method.claims import without_control
from results.plans.plan import Plan
from results.plans.reader import load
from results.rows import committed, store
from runner import costs
from runner.cell_key import identify, keys_among
from runner.checkpoints.store import default_folder
from runner.checkpoints.trained_model import CheckpointSettings
from runner.commands.report import draw
from runner.commands.shared import comparison
from runner.commands.shared.arguments import SETTING, Command, add_comparison, add_provider, add_with_committed
from runner.commands.shared.comparison import cells, changed, committed_rows, key_of, shown
from runner.measure import measure, prepare
from runner.preflight import ahead, remembered, said
from runner.preflight.refusals import check_cells
from runner.schedule import rates, schedule
from runner.schedule.board import Board
from runner.schedule.forecast import forecast, matched, timed, timings
from runner.schedule.progress import Display
from runner.schedule.ray_cluster import RayCluster
from schema import surroundings
from tasks.harness.processes import torchrun_says


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags of `run`; those that are called as a plan's keys replace these."""
    add = command.add_argument
    add_comparison(command, "a name that bench.py list shows, or a folder of results/ that holds a plan.toml")
    add("--models", metavar="A,B", help="only these models; a path/to/file.py adds your own")
    add("--tasks", metavar="A,B", help="only these tasks")
    add("--seeds", metavar="0,1", help="these seeds instead of the plan's")
    add("--size", metavar="NAME|width=64,...", help="a size by name (nano to 1.3b), or width, depth, heads")
    add("--set", **SETTING)
    add("--steps", type=int, help="training steps of every task")
    add("--device", help="cpu or cuda")
    add("--dtype", help="float32, float32+onednn or bfloat16")
    add_provider(command, None)
    add("--workers", type=int, help="training cells side by side, one thread each")
    add(
        "--compile",
        action="store_true",
        default=None,
        help="put whole models through torch.compile, here and in timings",
    )
    add("--parallel", help="ddp or fsdp2: several processes train each cell, of this machine or those of torchrun")
    add("--processes", type=int, help="with --parallel: how many")
    add("--launcher", default="local", choices=("local", "ray"), help="where cells are measured")
    add("--ray-address", metavar="HOST:PORT", help="with --launcher ray: a cluster; default: start one here")
    add("--snapshot-minutes", type=float, metavar="N", help="keep a training in progress every N minutes")
    add("--no-checkpoints", action="store_true", help="keep no trained models, use none that are kept")
    add("--cache", metavar="DIR", help="where trained models and prepared corpora are kept, not .cache")
    add("--retry-failed", action="store_true", help="measure failed cells again")
    add(
        "--from-committed",
        action="store_true",
        help="go on from the committed rows: what this same code measured for them is not measured again",
    )
    add("--dry-run", action="store_true", help="print the cells and their cost, measure nothing")
    add_with_committed(command)
    add("--log", choices=("tensorboard",), help="write losses for it while models train, in the comparison's folder")
    add("--quiet", action="store_true", help="print failures and the end only")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure the cells of a comparison that are missing, and draw its report; 1 where a cell failed.

    Of the processes that torchrun started the first does so; the others train along and say nothing.
    """
    if not torchrun_says.started():
        return _run(arguments, changed(arguments), console)
    torchrun_says.check()
    from tasks.harness.processes import torchrun

    if torchrun_says.rank():
        torchrun.follow()
        return 0
    with torchrun.leading():
        return _run(arguments, _under_torchrun(arguments, changed(arguments)), console)


def _under_torchrun(arguments: argparse.Namespace, plan: Plan) -> Plan:
    """The plan with all processes of torchrun in each cell, which are then measured one after another."""
    started = torchrun_says.processes()
    if not plan.parallel:
        raise ValueError(
            f"torchrun started {started} processes, which train each cell together: add --parallel ddp or fsdp2."
        )
    if arguments.launcher == "ray" or (arguments.workers or 1) > 1:
        raise ValueError("Under torchrun all processes train one cell at a time: leave out --launcher and --workers.")
    return replace(plan, processes=arguments.processes or started, workers=1)


def _run(arguments: argparse.Namespace, plan: Plan, console: Console) -> int:
    folder = folder_of(comparison.RESULTS, plan.comparison)
    here = store.read(folder / "rows.jsonl", plan.comparison)
    reference = committed_rows(folder, console) if arguments.from_committed else []
    taken = _fitting(plan, here, reference, keys_among([*here, *reference]) if arguments.dry_run else key_of)
    sentence = _told(taken) if arguments.from_committed else ""
    here += taken
    checkpoints = None if arguments.no_checkpoints else CheckpointSettings(default_folder(), plan.snapshot_minutes)
    if arguments.dry_run:
        with remembered.kept():
            return _dry_run(arguments, plan, here, checkpoints, console, sentence)
    if sentence:
        console.print(sentence, soft_wrap=True)
    found = cells(plan, here)
    with _surroundings_kept():  # what the workers inherit, a user's constructor may change
        _check(found, arguments, plan, console)
        if not _is_elsewhere(arguments, plan):
            with remembered.kept(), console.status("counting memory"):
                costs.check_memory(found)
    summary = _measured(plan, folder / "rows.jsonl", len(found), arguments, checkpoints, console, reference)
    measured = store.read(folder / "rows.jsonl")
    keys = {identify(cell).key for cell in [*cells(load(folder), measured), *cells(plan, measured)]}
    draw(plan, folder, keys, console, arguments.with_committed)
    return 1 if summary.failed else 0


def _fitting(plan: Plan, here: list, reference: list, key: Callable[[Cell], str]) -> list[dict[str, Any]]:
    """The committed rows that count as measured here."""
    if not reference:
        return []
    return committed.fitting(here, reference, lambda rows: [key(cell) for cell in cells(plan, rows, key)])


def _told(taken: list[dict[str, Any]]) -> str:
    """How many committed cells count as measured here, in a sentence."""
    why = "" if taken else ": none was measured by the code of now for what is planned and lacks rows here"
    return f"{counted(len({row['cell'] for row in taken}))} of the committed rows count as measured here{why}"


def _check(found: list[Cell], arguments: argparse.Namespace, plan: Plan, console: Console) -> None:
    """Refuse what cannot be measured; of a dry run on a machine without the plan's GPU only what no machine could."""
    with console.status("building each model once"):
        check_cells(found, elsewhere=_is_elsewhere(arguments, plan), unread=arguments.dry_run)


def _is_elsewhere(arguments: argparse.Namespace, plan: Plan) -> bool:
    """Whether another machine measures the cells."""
    absent = plan.device == "cuda" and not torch.cuda.is_available()
    return arguments.launcher == "ray" or (arguments.dry_run and absent)


def _measured(
    plan: Plan,
    rows: Path,
    count: int,
    arguments: argparse.Namespace,
    checkpoints: CheckpointSettings | None,
    console: Console,
    reference: list[dict[str, Any]],
) -> schedule.Summary:
    """What came of the plan's cells, measured into `rows`; trials first: they say which rate the others are trained at.

    Rows of `reference` count as measured, also of what these trials decide. What the rows then ask for beside, trials beyond an
    edge that won and further seeds of open claims, is measured too.
    """
    begun, summary, asked = time.monotonic(), schedule.Summary(), set()
    display = Display(count, quiet=arguments.quiet)
    with _board(arguments, rows.parent) as board, _cluster(arguments) as cluster, display:
        listeners = [one for one in (display, board) if one is not None]
        for are_trials in (True, False):
            while batch := _not_asked(plan, rows, are_trials, asked):
                asked |= set(map(repr, batch))
                display.expect(len(asked))
                committed.take_over(rows.parent, _fitting(plan, store.read(rows), reference, key_of))
                summary += schedule.run(
                    batch,
                    partial(measure, checkpoints=checkpoints),
                    identify,
                    rows,
                    workers=plan.workers,
                    timeout=plan.timeout,
                    retry_failed=arguments.retry_failed,
                    initializer=prepare,
                    on_event=lambda event: [one.tell(event) for one in listeners],
                    cluster=cluster,
                )
    console.print(
        f"{counted(summary.measured)} measured, {summary.skipped} already there, {summary.failed} failed, "
        f"in {time.monotonic() - begun:.0f} s; rows in {shown(rows)}"
    )
    return summary


def _not_asked(plan: Plan, rows: Path, are_trials: bool, asked: set[str]) -> list[Cell]:
    """The trials, or all other cells, that the rows so far ask for and that were not asked for before."""
    found = cells(plan, store.read(rows))
    return [cell for cell in found if (cell.kind == "trial") == are_trials and repr(cell) not in asked]


def _cluster(arguments: argparse.Namespace) -> AbstractContextManager[RayCluster | None]:
    """The machines that measure, None for this one."""
    if arguments.launcher == "ray":
        return RayCluster(arguments.ray_address, arguments.workers)
    if arguments.ray_address:
        raise ValueError("--ray-address names a cluster that only --launcher ray uses; add that flag.")
    return nullcontext()


def _board(arguments: argparse.Namespace, folder: Path) -> AbstractContextManager[Board | None]:
    """What writes for tensorboard in a comparison's folder; None without --log."""
    return Board(folder / "tensorboard") if arguments.log else nullcontext()


def _dry_run(
    arguments: argparse.Namespace,
    plan: Plan,
    here: list,
    checkpoints: CheckpointSettings | None,
    console: Console,
    opening: str,
) -> int:
    """Print `opening`, and what a run would do and cost; no data are read or downloaded for it."""
    folder, key = folder_of(comparison.RESULTS, plan.comparison), keys_among(here)
    done, planned = store.statuses(here), cells(plan, here, key)
    with _surroundings_kept(), said.silence() as warned:  # a user's code is asked what it costs
        elsewhere = _is_elsewhere(arguments, plan)
        ahead.ask(ahead.questions(planned, comparison.RESULTS, elsewhere, checkpoints, key if done else None))
        _check(planned, arguments, plan, console)
        with console.capture() as beside:
            console.print(opening, end="\n" * bool(opening), soft_wrap=True)
            devices = {cell.device for cell in planned}
            past = (
                timings(comparison.RESULTS, devices)
                + committed_rows(folder, console, partial(timed, devices=devices))
                + here
            )
        known = partial(costs.of_cell, checkpoints=checkpoints, past=rates.trainings(past))
        with console.status("counting operations and memory"):
            table, line = forecast(plan, planned, lambda cell: done.get(key(cell)) if done else None, past, known)
        with console.capture() as forecasted:
            console.print(table)
            if (standings := matched(plan, planned, known)) is not None:
                console.print(standings)
            for text in (line, *_method(plan)):
                console.print(text, highlight=False, markup=False)
    told = beside.get() + forecasted.get()
    console.out(told, end="", highlight=False)
    is_alone = not arguments.cache and not any(cell.model_files for cell in planned)
    if is_alone and not warned and said.of_the_house((cell.settings, cell.task_settings) for cell in planned):
        said.keep(told)
    return 0


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Inside, models are built and asked on one thread: on tensors as small as theirs several wait for one another."""
    with surroundings.kept():
        torch.set_num_threads(1)
        yield


def _method(plan: Plan) -> list[str]:
    """What the cells do not show of how the plan decides: looks to come, and what claims lack."""
    told = []
    if plan.search is not None and plan.search.widen:
        told.append(f"a grid grows by up to {plan.search.widen} rates at each end while an edge wins")
    if plan.schedule is not None:
        looks = ", ".join(str(len(seeds)) for seeds in plan.schedule.looks)
        told.append(
            f"claims that stay open are looked at with {looks} seeds; trainings of looks to come are not counted"
        )
    told += filter(None, [without_control(plan.claims)])
    bare = sum(claim.margin is None for claim in plan.claims)
    return told + (
        [f"{bare} of {len(plan.claims)} claims name no margin; level cannot be said of them"] if bare else []
    )


COMMANDS = {
    "run": Command(
        "measure what is missing in a comparison, then draw its report",
        add_flags,
        run,
        "run quick --models retnet,mine.py",
    )
}
