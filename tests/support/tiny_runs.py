"""`bench.py run` on a tiny plan in a results folder of its own, in a process of its own, which may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from results.rows import store as record
from runner.checkpoints import store
from schema.places import ROOT
from tests.support.tiny_plan import tiny_plan

DRIVER = (
    "import sys, pathlib, bench; from runner.commands.shared import comparison; comparison.RESULTS = pathlib.Path(sys.argv[1]); "
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
