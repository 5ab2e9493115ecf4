"""Runs that are killed at any moment and started again end with the rows of a run that nobody disturbed."""

from __future__ import annotations

import random
import time

import pytest

from results.rows import store as record
from schema.terms import PARALLEL
from tests.support.tiny_runs import Runs


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
