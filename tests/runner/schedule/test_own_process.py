"""Cells of a user's code: each in a process of its own, and nothing that the code does there reaches the run."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from results.rows import store
from runner.schedule import schedule
from tests.support import fake_measure, rude_measure
from tests.support.rude_measure import identify, rude

DIED = {"os._exit(0)": "worker died (exit code 0)", "os._exit(3)": "worker died (exit code 3)"}
DIED |= {"kill": "worker died (signal 9)", "closes": "worker died (signal 9)", "babbles": "worker died (signal 9)"}
RAISED = {"sys.exit(0)": "SystemExit: 0", "KeyboardInterrupt": "KeyboardInterrupt", "Rude": "Rude"}


def run(cells, path, **options):
    events: list[schedule.RunEvent] = []
    summary = schedule.run(cells, rude_measure.measure, identify, path, on_event=events.append, **options)
    return summary, events


def rows(path: Path) -> dict[str, dict]:
    return {row["model"]: row for row in store.read(path) if row["metric"] != "threads"}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_however_a_user_s_code_ends_its_process_it_is_one_failed_row_and_the_run_goes_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    cells = [rude(how, how) for how in (*DIED, *RAISED, "long", "interrupt")] + [rude("last")]
    begun = time.monotonic()
    summary, events = run(cells, path, workers=3)
    assert time.monotonic() - begun < 120
    found = rows(path)
    reasons = {name: row["reason"] for name, row in found.items()}
    assert reasons.pop("last") == reasons.pop("interrupt") == ""
    told = reasons.pop("long")
    assert told.startswith("ValueError: line one line two xxx") and "\n" not in told and len(told) < 600
    assert reasons == DIED | RAISED
    assert (summary.measured, summary.failed) == (2, len(DIED) + len(RAISED) + 1)
    assert {event.kind for event in events} == {"started", "progress", "finished", "failed"}


def test_workers_of_the_house_and_of_a_user_warn_in_one_line(tmp_path, capfd):
    cells = [fake_measure.cell("ours", warns="the\nfirst"), rude("mine", warns="the\nsecond")]
    run(cells, tmp_path / "rows.jsonl")
    said = [line for line in capfd.readouterr().err.splitlines() if "bench.py" in line or "warn" in line]
    assert sorted(said) == ["bench.py: the first", "bench.py: the second"]


def test_house_cells_survive_what_no_except_exception_sees(tmp_path):
    path = tmp_path / "rows.jsonl"
    house = [dataclasses.replace(rude(how, how), model_files=()) for how in RAISED]
    summary, _ = run([*house, fake_measure.cell("last")], path)
    assert {name: row["reason"] for name, row in rows(path).items()} == RAISED | {"last": ""}
    assert (summary.measured, summary.failed) == (1, len(RAISED))


def test_every_cell_of_a_user_has_a_fresh_process_and_the_house_keeps_its_worker(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    users = [rude(f"user{n}", log=str(log)) for n in range(2)]
    house = [fake_measure.cell(f"house{n}", log=str(log)) for n in range(2)]
    run([house[0], users[0], house[1], users[1]], path, initializer=fake_measure.prepare)
    pids = dict(line.split() for line in log.read_text().splitlines())
    assert pids["house0"] == pids["house1"] and len(set(pids.values())) == 3
    threads = {row["model"]: row["value"] for row in store.read(path) if row["metric"] == "threads"}
    assert set(threads.values()) == {1.0}


@pytest.mark.parametrize("how", ["thread", "child", "fork"])
def test_what_a_user_s_code_leaves_running_ends_with_its_cell(how, tmp_path):
    path, pid = tmp_path / "rows.jsonl", tmp_path / "pid"
    begun = time.monotonic()
    summary, _ = run([rude(how, how, pid=str(pid)), rude("next")], path)
    assert summary.measured == 2 and time.monotonic() - begun < 60
    assert not pid.exists() or not alive(int(pid.read_text()))


def test_a_user_s_cell_that_takes_too_long_is_ended_with_its_children(tmp_path):
    path, pid = tmp_path / "rows.jsonl", tmp_path / "pid"
    summary, _ = run([rude("slow", "fork", pid=str(pid), seconds=600), rude("next")], path, timeout=1)
    assert rows(path)["slow"]["reason"] == "timed out after 1 s" and rows(path)["next"]["status"] == "ok"
    assert not alive(int(pid.read_text()))


def test_interrupted_by_the_user_the_processes_stop(tmp_path):
    log = tmp_path / "log"

    def interrupt(event):
        if event.kind == "started":
            while not log.exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slow = rude("slow", seconds=600, log=str(log))
        schedule.run([slow], rude_measure.measure, identify, tmp_path / "rows.jsonl", on_event=interrupt)
    assert not alive(int(log.read_text().split()[1]))


def test_rows_that_cannot_be_written_end_the_run_as_they_do_for_the_house(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(store.RecordError, match="could not be written"):
        run([rude("good", block=str(path))], path)
    assert os.path.isdir(path)
