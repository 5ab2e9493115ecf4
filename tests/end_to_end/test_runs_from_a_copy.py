"""Runs from the plan to the figures in a copy of the project: killed and started twice, and with a baseline added."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from results.rows import store
from schema.places import ROOT
from tests.support.tiny_plan import tiny_plan


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project's code with the comparison `tiny`."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("schema", "models", "baselines", "tasks", "results", "runner"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("rows.jsonl", "reference"))
    shutil.copy(ROOT / "bench.py", copy)
    (copy / ".cache").mkdir()
    compiled = Path(tempfile.gettempdir()) / "native"
    compiled.mkdir(exist_ok=True)
    (copy / ".cache" / "native").symlink_to(compiled)  # what is compiled once serves all
    (copy / "results" / "tiny").mkdir()
    (copy / "results" / "tiny" / "plan.toml").write_text(tiny_plan())
    return copy


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "bench.py", *arguments], cwd=project, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow  # kills between cells and inside a training are tried apart, on made-up measurements
def test_a_killed_run_goes_on_and_measures_nothing_twice(project):
    plan = project / "results" / "tiny" / "plan.toml"
    plan.write_text(tiny_plan(budget="steps = 60, batch_tokens = 256"))
    rows = project / "results" / "tiny" / "rows.jsonl"
    command = [sys.executable, "bench.py", "run", "tiny", "--workers", "1"]
    run = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(1500):  # two minutes and a half: the machine may be busy
        if rows.exists() and len({row["cell"] for row in store.read(rows)}) >= 2:
            break
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = store.read(rows)
    assert before
    pair = [subprocess.Popen(command, cwd=project) for _ in range(2)]
    assert [process.wait(timeout=200) for process in pair] == [0, 0]
    after = store.read(rows)
    assert after[: len(before)] == before
    assert len({row["cell"] for row in after}) == 5
    numbers = [(row["cell"], row["model"], row["metric"], json.dumps(row["where"], sort_keys=True)) for row in after]
    assert len(numbers) == len(set(numbers))


def new_baseline(project: Path) -> str:
    """The guide's example, put into the copy as the baseline `new-hgrn2`; returns the example."""
    page = (ROOT / "docs" / "add_a_baseline.md").read_text()
    source = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "@register" in block)
    place = project / "baselines" / "second_generation" / "new_hgrn2.py"
    place.write_text(source.replace('"my-hgrn2"', '"new-hgrn2"'))
    return source


@pytest.mark.slow
def test_a_new_baseline_is_listed_and_checked(project):
    new_baseline(project)
    for command in (["list"], ["check", "new-hgrn2"]):
        done = call(project, *command)
        assert done.returncode == 0 and "new-hgrn2" in done.stdout, done.stderr


def test_a_baseline_is_one_file(project, tmp_path):
    source = new_baseline(project)
    mine = tmp_path / "mine.py"
    mine.write_text(source)
    few = ("--seeds", "0", "--workers", "1")  # a process takes longer to start than these trainings take
    done = call(project, "run", "tiny", "--models", f"transformer,new-hgrn2,{mine}", *few)
    assert done.returncode == 0, done.stderr
    report = project / "results" / "tiny" / "report"
    table = (report / "tables" / "needle.md").read_text()
    assert "| new-hgrn2 |" in table and "| my-hgrn2 |" in table and "**yours**" in table
    assert any("new-hgrn2" in figure.read_text() for figure in (report / "figures").glob("*.svg"))
    rows = store.read(project / "results" / "tiny" / "rows.jsonl")
    assert {row["family"] for row in rows if row["model"] == "new-hgrn2"} == {"second_generation"}
    assert {row["family"] for row in rows if row["model"] == "my-hgrn2"} == {"yours"}
