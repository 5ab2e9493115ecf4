"""The scheduler under deaths, timeouts, kills and company: nothing lost, nothing twice, no failure ends the run."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from results.rows import predictions, store
from runner.schedule import schedule
from schema.places import ROOT
from tests.support import fake_measure
from tests.support.fake_measure import cell, identify, measure


def run(cells, path, **options):
    events: list[schedule.RunEvent] = []
    summary = schedule.run(cells, measure, identify, path, on_event=events.append, **options)
    return summary, events


def by_model(path: Path) -> dict[str, dict]:
    return {row["model"]: row for row in store.attempts(store.read(path)) if row["metric"] != "threads"}


def start_run(path: Path, log: Path, count: int, seconds: float) -> subprocess.Popen:
    search = str(ROOT)
    command = [sys.executable, fake_measure.__file__, str(path), str(log), str(count), str(seconds), "2"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.PIPE, text=True)


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_every_way_to_fail_is_a_row_and_harms_only_its_cell(tmp_path):
    path = tmp_path / "rows.jsonl"
    cells = [
        cell("good"), cell("dies", die=True), cell("slow", seconds=60), cell("memory", raises="memory"),
        cell("diverges", raises="diverged"), cell("wrong", raises="value"), cell("nan", nan=True), cell("last"),
    ]  # fmt: skip
    summary, events = run(cells, path, workers=2, timeout=2)
    rows = by_model(path)
    assert {name: rows[name]["reason"] for name in rows} == {
        "good": "", "last": "", "dies": "worker died (signal 9)", "slow": "timed out after 2 s",
        "memory": "out of memory", "diverges": "diverged: loss is nan at step 3",
        "wrong": "ValueError: bad setting", "nan": "diverged: compact_exact_match is nan",
    }  # fmt: skip
    assert (summary.measured, summary.failed, summary.skipped) == (3, 5, 0)  # nan still measured its threads
    assert all(r["value"] is None and r["count"] == 0 for r in rows.values() if r["status"] == "failed")
    kinds = Counter(event.kind for event in events)
    assert kinds["finished"] == 3 and kinds["failed"] == 5 and kinds["progress"] >= 1

    again, _ = run(cells, path, workers=2, timeout=2)
    assert (again.measured, again.failed, again.skipped) == (0, 0, 8)
    changed = [dataclasses.replace(c, settings={**c.settings, "log": str(tmp_path / "log")}) for c in cells[3:4]]
    assert store.key(changed[0]) != store.key(cells[3])


def test_failed_cells_are_tried_again_only_when_asked(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    cells = [cell("wrong", raises="value", log=str(log)), cell("good", log=str(log))]
    run(cells, path)
    run(cells, path)
    assert len(log.read_text().splitlines()) == 2
    summary, _ = run(cells, path, retry_failed=True)
    assert (summary.failed, summary.skipped) == (1, 1)
    assert Counter(line.split()[0] for line in log.read_text().splitlines()) == {"wrong": 2, "good": 1}


def test_timing_cells_run_after_training_alone_and_with_their_threads(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    timing = [dataclasses.replace(cell(f"t{i}", kind="timing", log=str(log)), threads=3) for i in range(2)]
    training = [cell("a", log=str(log)), cell("b", log=str(log))]
    before = os.environ.get("OMP_NUM_THREADS")
    run([*timing, *training], path, workers=2, initializer=fake_measure.prepare)
    assert os.environ.get("OMP_NUM_THREADS") == before
    order = [line.split() for line in log.read_text().splitlines()]
    assert {name for name, _ in order[:2]} == {"a", "b"} and [name for name, _ in order[2:]] == ["t0", "t1"]
    assert order[2][1] == order[3][1]  # one process times all
    threads = {row["model"]: row["value"] for row in store.read(path) if row["metric"] == "threads"}
    assert threads == {"a": 1.0, "b": 1.0, "t0": 3.0, "t1": 3.0}


def test_two_runs_at_once_measure_nothing_twice(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    runs = [start_run(path, log, count=6, seconds=0.3) for _ in range(2)]
    outputs = [list(map(int, process.communicate(timeout=50)[0].split())) for process in runs]
    assert all(process.returncode == 0 for process in runs)
    measured = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert measured == {f"model{i}": 1 for i in range(6)}
    assert sum(output[0] for output in outputs) == 6 and all(sum(output) == 6 for output in outputs)
    assert len(store.read(path)) == 12


def test_kill_in_the_middle_loses_nothing_and_leaves_no_worker(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    process = start_run(path, log, count=6, seconds=0.6)
    wait_until(lambda: path.exists() and len(store.read(path)) >= 2 and len(log.read_text().splitlines()) >= 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()}
    wait_until(lambda: not any(_alive(pid) for pid in pids), 10)
    recorded = {row["model"] for row in store.read(path)}
    assert recorded and len(recorded) < 6
    started = Counter(line.split()[0] for line in log.read_text().splitlines())

    second = start_run(path, log, count=6, seconds=0.6)
    measured, failed, skipped = map(int, second.communicate(timeout=50)[0].split())
    assert (measured, failed, skipped) == (6 - len(recorded), 0, len(recorded))
    assert Counter(row["model"] for row in store.read(path)) == {f"model{i}": 2 for i in range(6)}
    twice = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert all(twice[name] == started[name] for name in recorded)


def test_workers_of_a_killed_run_end_in_the_middle_of_a_long_cell(tmp_path):
    log = tmp_path / "log"
    process = start_run(tmp_path / "rows.jsonl", log, count=2, seconds=300)
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()}
    try:
        wait_until(lambda: not any(_alive(pid) for pid in pids), 10)
    finally:
        for pid in filter(_alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_worker_that_dies_after_recording_its_cell_does_not_make_it_failed(tmp_path):
    path, one = tmp_path / "rows.jsonl", cell("good")
    rows = store.rows(one, identify(one), measure(one, lambda progress: None))
    store.append(path, rows)
    run = schedule.Work(measure, identify, path, None, None, None, (), None)
    assert run._lost(schedule.Job(one, identify(one)), "worker died (signal 9)") == ("measured", rows)
    assert store.read(path) == rows


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_record_that_cannot_be_written_ends_the_run_with_a_clear_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(store.RecordError, match="could not be written"):
        run([cell("good", block=str(path))], path)


def test_interrupted_by_the_user_the_workers_stop_and_rows_stay(tmp_path):
    path = tmp_path / "rows.jsonl"

    def interrupt(event):
        if event.kind == "finished":
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        schedule.run([cell("quick"), cell("slow", seconds=60)], measure, identify, path, workers=2, on_event=interrupt)
    assert time.monotonic() - begun < 20
    assert {row["model"] for row in store.read(path)} == {"quick"}


def test_predictions_are_kept_beside_the_rows(tmp_path):
    kept, none = cell("kept", predictions=[{"exam": 0, "hits": "01"}]), cell("none")
    run([kept, none], tmp_path / "rows.jsonl")
    folder = tmp_path / predictions.FOLDER
    assert predictions.read(folder, identify(kept).key) == [{"exam": 0, "hits": "01"}]
    assert predictions.read(folder, identify(none).key) is None
    assert [path.name for path in folder.iterdir()] == [f"{identify(kept).key}.jsonl.xz"]
