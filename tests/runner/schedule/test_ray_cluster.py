"""Cells on a Ray cluster: every end is a row, timed cells are alone, and only the driver writes."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from results.report.curves import FOLDER, TRAINING, CurvePoint, path_of, read
from results.rows import predictions, store
from runner.schedule import schedule, worker
from runner.schedule.ray_cluster import RayCluster
from tests.support import fake_measure
from tests.support.fake_measure import cell, identify, measure


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="the launcher ray is optional: pip install -e '.[ray]'")
    with RayCluster(at_once=2) as cluster:
        yield cluster


def run(cluster, cells, path, **options):
    events: list[schedule.RunEvent] = []
    summary = schedule.run(cells, measure, identify, path, on_event=events.append, cluster=cluster, **options)
    return summary, events


def by_model(path: Path) -> dict[str, dict]:
    return {row["model"]: row for row in store.attempts(store.read(path)) if row["metric"] != "threads"}


def test_every_way_to_fail_is_a_row_and_harms_only_its_cell(cluster, tmp_path):
    path = tmp_path / "rows.jsonl"
    cells = [
        cell("good", predictions=[{"exam": 0, "hits": "01"}]), cell("dies", die=True), cell("slow", seconds=60),
        cell("memory", raises="memory"), cell("diverges", raises="diverged"), cell("wrong", raises="value"), cell("last"),
    ]  # fmt: skip
    summary, events = run(cluster, cells, path, timeout=2, initializer=fake_measure.prepare)
    reasons = {name: row["reason"] for name, row in by_model(path).items()}
    assert reasons.pop("dies").startswith("worker died")
    assert reasons == {
        "good": "", "last": "", "slow": "timed out after 2 s", "memory": "out of memory",
        "diverges": "diverged: loss is nan at step 3", "wrong": "ValueError: bad setting",
    }  # fmt: skip
    assert (summary.measured, summary.failed, summary.skipped) == (2, 5, 0)
    kinds = Counter(event.kind for event in events)
    assert kinds["started"] == 7 and kinds["finished"] == 2 and kinds["failed"] == 5
    kept = predictions.read(tmp_path / predictions.FOLDER, identify(cells[0]).key)
    assert kept == [{"exam": 0, "hits": "01"}]
    curves = {one.model: read(path_of(tmp_path / FOLDER, identify(one).key)) for one in cells}
    told = [CurvePoint(1, TRAINING, 3.0)]
    assert curves == {
        name: [] if name in ("dies", "slow") else told for name in curves
    }  # of these no node tells any more
    again, _ = run(cluster, cells, path, timeout=2)
    assert (again.measured, again.failed, again.skipped) == (0, 0, 7)


def test_timed_cells_come_last_one_at_a_time_and_with_their_threads(cluster, tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    timed = [dataclasses.replace(cell(f"t{i}", kind="timing", log=str(log), seconds=0.3), threads=2) for i in range(2)]
    training = [cell(name, log=str(log), seconds=0.3) for name in "ab"]
    events: list[tuple[str, str]] = []
    summary = schedule.run(
        [*timed, *training], measure, identify, path, initializer=fake_measure.prepare, cluster=cluster,
        on_event=lambda event: events.append((event.cell.model, event.kind)),
    )  # fmt: skip
    assert summary.measured == 4
    assert {line.split()[0] for line in log.read_text().splitlines()[:2]} == {"a", "b"}
    ends = [(model, kind) for model, kind in events if model in ("t0", "t1") and kind in ("started", "finished")]
    assert ends == [("t0", "started"), ("t0", "finished"), ("t1", "started"), ("t1", "finished")]
    threads = {row["model"]: row["value"] for row in store.read(path) if row["metric"] == "threads"}
    assert threads == {"a": 1.0, "b": 1.0, "t0": 2.0, "t1": 2.0}


def test_a_cell_that_another_run_has_claimed_waits_for_it(cluster, tmp_path):
    path, one = tmp_path / "rows.jsonl", cell("claimed")
    lock = worker.claim(path, identify(one).key)
    lock.acquire()
    rows = store.rows(one, identify(one), measure(one, lambda progress: None))

    def release(event):
        if event.kind == "waiting":
            store.append(path, rows)
            lock.release()

    summary = schedule.run([one, cell("free")], measure, identify, path, cluster=cluster, on_event=release)
    assert (summary.measured, summary.skipped) == (1, 1)
    assert [row for row in store.read(path) if row["model"] == "claimed"] == rows


def test_interrupted_by_the_user_the_nodes_stop_and_rows_stay(cluster, tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    seen = set()

    def interrupt(event):
        seen.add((event.cell.model, event.kind))
        if {("quick", "finished"), ("slow", "progress")} <= seen:
            raise KeyboardInterrupt

    cells = [cell("quick"), cell("slow", seconds=60, log=str(log))]
    with pytest.raises(KeyboardInterrupt):
        schedule.run(cells, measure, identify, path, cluster=cluster, on_event=interrupt)
    assert {row["model"] for row in store.read(path)} == {"quick"}
    pid = int(log.read_text().split()[1])
    end = time.monotonic() + 20
    while _alive(pid):
        assert time.monotonic() < end
        time.sleep(0.1)
    with worker.claim(path, identify(cells[1]).key).acquire(blocking=False):
        pass  # the claim is free again


def test_a_node_with_other_code_ends_the_run(cluster, tmp_path):
    def identify_otherwise(cell):
        here = os.getpid() == driver
        return store.Identity(store.key(cell, code_hash="here" if here else "there"))

    driver = os.getpid()
    with pytest.raises(RuntimeError, match="its code, data or device for .* differ"):
        schedule.run([cell("any")], measure, identify_otherwise, tmp_path / "rows.jsonl", cluster=cluster)
    assert store.read(tmp_path / "rows.jsonl") == []


def test_a_cell_that_no_node_has_room_for_is_refused(cluster, tmp_path):
    large = dataclasses.replace(cell("large"), budget={"steps": 1, "batch_tokens": 64, "processes": 4096})
    with pytest.raises(RuntimeError, match="No node of the cluster has the 4096 processors"):
        run(cluster, [large], tmp_path / "rows.jsonl")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
