"""The first hour on a device: every fast form held to its law there, kernels beside one another, every model's speed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.ops import providers
from results.plans.files import folder_of
from runner.preflight.device import summary, turns
from schema.places import ROOT

COMPARISON = "device"  # of results/comparisons/own/, whose side-by-side benchmark and timings are parts of the hour
MINUTES = 25.0
GOES_ON = 60  # seconds that a run which was told to stop has for keeping its rows


class Part(NamedTuple):
    """One part: what it does, its share of the minutes, and the tasks of the comparison that it runs; "" for the laws."""

    what: str
    share: float
    tasks: str


PARTS = (
    Part("every provider of every operation against its law, forward and backward, float32 and bfloat16", 0.35, ""),
    Part("a layer of Titans beside the gated delta rule and SDPA, 4,096 and 16,384 tokens", 0.2, "titans-kernels"),
    Part("training, decoding and memory of every model, 4,096 and 16,384 tokens", 0.45, "throughput"),
)


def plan(device: str, minutes: float, console: Console) -> None:
    """Print what the hour does, for how long at most, and which providers it finds."""
    table = Table("part", "at most", title=f"check --device {device}")
    for part in PARTS:
        table.add_row(part.what, f"{minutes * part.share:.0f} minutes")
    console.print(table)
    found = Table("provider", "here")
    for name in providers.PROVIDERS:
        try:
            providers.check_provider(name)
            found.add_row(name, "yes")
        except providers.ProviderAbsent as error:
            found.add_row(name, escape(str(error)))
    console.print(found)
    console.print(f"what the last two cost: python bench.py run {COMPARISON} --device {device} --dry-run")
    console.print(f"rows: {laws_file()}, and those of the comparison {COMPARISON}: {laws_file().parent / 'rows.jsonl'}")


def laws_file() -> Path:
    """Where the rows of the first part lie."""
    return folder_of(ROOT / "results", COMPARISON) / "laws.jsonl"


def run(names: Sequence[str], device: str, minutes: float, console: Console) -> int:
    """All parts, each in the time that is its own or left over; 1 where a form is off its law or fails, or a part does."""
    begun, ended, share = time.monotonic(), [], 0.0
    for part in PARTS:
        share += part.share
        until = begun + 60 * minutes * share
        console.print(f"[bold]{part.what}[/bold]")
        try:
            bad = _timed(part, names, device, until, console) if part.tasks else _laws(names, device, until, console)
        except Exception as error:  # the other parts' rows are worth having all the same
            console.print(f"this part ended: {type(error).__name__}: {error}", style="red", markup=False)
            bad = True
        ended.append(bad)
    return 1 if any(ended) else 0


def _laws(names: Sequence[str], device: str, until: float, console: Console) -> bool:
    rows: list[dict[str, Any]] = []
    path = laws_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with console.status("") as status, path.open("w", encoding="utf-8") as out:
        for row in turns.rows(names, device, until, status.update):
            rows.append(row)
            print(json.dumps(row), file=out, flush=True)
    table = path.with_suffix(".md")
    table.write_text(summary.markdown(rows), encoding="utf-8")
    summary.show(rows, console)
    console.print(f"rows: {path}\ntable: {table}", markup=False)
    return any(row["status"] in summary.BAD for row in rows)


def _timed(part: Part, names: Sequence[str], device: str, until: float, console: Console) -> bool:
    """Run the comparison's tasks of a part; what is not done in time is left, and the rows that are there are kept."""
    command = [sys.executable, str(ROOT / "bench.py"), "run", COMPARISON, "--tasks", part.tasks, "--device", device]
    command += ["--no-checkpoints", *(["--models", ",".join(names)] if part.tasks == "throughput" else [])]
    # What a shell starts in the background (nohup ... &) ignores Ctrl-C, and so would this.
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    try:
        return process.wait(max(1.0, until - time.monotonic())) != 0
    except subprocess.TimeoutExpired:
        console.print(
            f"the time of this part is over; to go on: {' '.join(['python', 'bench.py', *command[2:]])}", markup=False
        )
        process.send_signal(signal.SIGINT)  # as Ctrl-C: what was measured is kept
    try:
        process.wait(GOES_ON)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return False
