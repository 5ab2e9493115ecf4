"""Runs that are killed at any moment and started again end with the rows of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from results.rows import store as record
from runner.checkpoints import store
from schema.places import ROOT
from schema.terms import PARALLEL
from tests.support.tiny_plan import tiny_plan

DRIVER = (
    "import sys, pathlib, bench; from runner.commands import comparison; comparison.RESULTS = pathlib.Path(sys.argv[1]); "
    "sys.exit(bench.main(sys.argv[2:]))"
)
SNAPSHOTS = "\nsnapshot_minutes = 0.005"
RATES = "learning_rates = [1e-3, 1e-2]\nsearch = { fraction = 0.25, seed = 0 }"
TIMES = ("training_seconds", "evaluation_seconds", "weights_age_seconds", "training_peak_memory_bytes")  # of one run
OF_ITS_TIME = ("when", "commit", "dirty")  # the checkout may change meanwhile


class Runs:
    """`bench.py run tiny` in a results folder of its own, with a cache of its own."""

    def __init__(self, folder: Path, steps: int, rates: str = RATES, batch_tokens: int = 512):
        self.results, self.cache = folder / "results", folder / "cache"
        (self.results / "tiny").mkdir(parents=True)
        plan = tiny_plan(
            models=["deltanet", "titans-mac"],
            seeds=[0],
            rates=rates + SNAPSHOTS,
            budget=f"steps = {steps}, batch_tokens = {batch_tokens}",
            lengths=[64, 128],
            samples=2,
        )
        (self.results / "tiny" / "plan.toml").write_text(plan)
        self.rows = self.results / "tiny" / "rows.jsonl"

    def start(self, *flags: str) -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, self.results, "run", "tiny", "--cache", self.cache, *flags]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(list(map(str, command)), cwd=ROOT, start_new_session=True, **quiet)

    def finish(self, *flags: str) -> float:
        begun, run = time.monotonic(), self.start(*flags)
        try:
            assert run.wait(timeout=600) == 0
        finally:
            if run.poll() is None:
                self.kill(run)
        return time.monotonic() - begun

    def kill_after(self, seconds: float) -> bool:
        """Start, kill the whole group so many seconds later; whether it was still at work."""
        run = self.start()
        try:
            run.wait(timeout=seconds)
            return False
        except subprocess.TimeoutExpired:
            self.kill(run)
            return True

    @staticmethod
    def kill(run: subprocess.Popen) -> None:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()

    def snapshots(self) -> int:
        return len(list(self.cache.glob(f"checkpoints/*/{store.SNAPSHOT}")))

    def numbers(self) -> list[str]:
        """All rows but times and memory, without when they were written."""
        rows = [row for row in record.read(self.rows) if row["metric"] not in TIMES]
        return sorted(json.dumps({**row, **dict.fromkeys(OF_ITS_TIME)}, sort_keys=True) for row in rows)

    def table(self) -> list[str]:
        lines = (self.results / "tiny" / "report" / "tables" / "needle.csv").read_text().splitlines()
        return [line for line in lines if not any(metric in line for metric in TIMES)]


@pytest.mark.slow
def test_a_run_that_is_killed_inside_a_training_leaves_a_snapshot(tmp_path):
    runs = Runs(tmp_path, steps=4000, rates="learning_rate = 1e-3")  # a trial keeps nothing
    run = runs.start("--models", "deltanet")
    end = time.monotonic() + 120
    while not runs.snapshots() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    runs.kill(run)
    assert runs.snapshots() and "deltanet" not in {row["model"] for row in record.read(runs.rows)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PARALLEL)
def test_a_training_of_two_processes_that_is_killed_goes_on_to_the_same_numbers(tmp_path, kind):
    flags = ("--parallel", kind, "--processes", "2", "--models", "deltanet")
    one_rate = {"steps": 200, "rates": "learning_rate = 1e-3", "batch_tokens": 480}  # 20 rows at first
    calm, killed = (Runs(tmp_path / name, **one_rate) for name in ("calm", "killed"))
    calm.finish(*flags)
    run, end = killed.start(*flags), time.monotonic() + 300
    while not killed.snapshots() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    killed.kill(run)
    assert killed.snapshots() == 1
    killed.finish(*flags)
    assert killed.numbers() == calm.numbers() and killed.snapshots() == 0


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ten_kills_at_random_moments_change_no_number(tmp_path):
    calm, killed = Runs(tmp_path / "calm", steps=200), Runs(tmp_path / "killed", steps=200)
    begun = time.monotonic()
    whole = calm.finish()
    idle = calm.finish()  # what starting and reporting take
    moments, hit, inside = random.Random(6), 0, 0
    # ten, and on a busy machine as many more as it takes to hit a training that had left a snapshot
    while (hit < 10 or not inside) and time.monotonic() - begun < 1200:
        hit += killed.kill_after(moments.uniform(0.1, idle + (whole - idle) / 4))
        inside += killed.snapshots() > 0
    assert hit >= 10 and inside > 0
    killed.finish()
    assert killed.numbers() == calm.numbers() and killed.table() == calm.table()
    assert len({row["cell"] for row in record.read(killed.rows)}) >= 7  # more where an edge of the grid won
    assert killed.snapshots() == 0
