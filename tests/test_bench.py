"""The command line: what it refuses and how, and runs from the plan to the figures in a copy of the project."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from measuring import trained
from measuring.building import opponents
from measuring.cells import measure
from measuring.identity import OPPONENTS_FAMILY, identify
from measuring.listed import models_markdown
from models import registry
from results import prediction_files, record

ROOT = Path(bench.__file__).resolve().parent
PLAN = """
title = "Tiny"
question = "Does it run?"
models = ["transformer", "deltanet"]
seeds = [0, 1]
learning_rate = 1e-3
workers = 2
[size]
width = 16
depth = 1
heads = 2
[budget]
steps = {steps}
batch_tokens = 256
[[tasks]]
name = "needle"
template = "compact"
variants = ["s-niah-1"]
length = 64
test_lengths = [64]
samples = 1
"""


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A results folder of its own with one comparison, `tiny`."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "plan.toml").write_text(PLAN.format(steps=2))
    return tmp_path


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project's code with the comparison `tiny`."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("models", "baselines", "tasks", "results", "measuring"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "rows.jsonl", "reference")
        )
    shutil.copy(ROOT / "bench.py", copy)
    (copy / "results" / "tiny").mkdir()
    (copy / "results" / "tiny" / "plan.toml").write_text(PLAN.format(steps=2))
    return copy


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "bench.py", *arguments], cwd=project, capture_output=True, text=True, timeout=200
    )


def test_list_names_every_model_task_and_comparison(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert bench.main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in (*registry.names(), "needle", "babilong", "language-modelling", "quick", "smoke"):
        assert name in printed


def test_list_tells_what_each_model_costs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert bench.main(["list", "--costs", "--size", "width=32,depth=1,heads=2", "--length", "20"]) == 0
    printed = capsys.readouterr().out
    for name in registry.names():
        line = next(line for line in printed.splitlines() if f" {name} " in line)
        parameters, forward, training = (int(line.split("│")[i].replace(",", "")) for i in (2, 4, 5))
        assert 0 < 2 * parameters < forward < training


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--costs", "--size", "breadth=3"], "--size knows"),
        (["list", "--costs", "--length", "0"], "at least 1 token"),
        (["run", "nothing"], "known comparisons: tiny"),
        (["run", "tiny", "--models", "tansformer"], "transformer"),
        (["run", "tiny", "--tasks", "neddle"], "needle"),
        (["run", "tiny", "--set", "deltanet.kernal=3"], "no setting 'kernal'"),
        (["run", "tiny", "--set", "deltanet.kernel=wide"], "wrong type"),
        (["run", "tiny", "--set", "needle.lenght=64"], "no setting 'lenght'"),
        (["run", "tiny", "--set", "kernel"], "NAME.SETTING=VALUE"),
        (["run", "tiny", "--size", "width=30,heads=4"], "multiple of heads"),
        (["run", "tiny", "--size", "width"], "there is no size 'width'; known: nano"),
        (["run", "tiny", "--size", "width=8,depth"], "--size takes a name, or width=64"),
        (["run", "tiny", "--seeds", "0,x"], "whole numbers"),
        (["run", "tiny", "--provider", "fla"], "fla"),
        (["run", "tiny", "--provider", "magic"], "magic"),
        (["run", "tiny", "--device", "cuda"], "cuda"),
        (["run", "tiny", "--models", "absent.py"], "absent.py"),
        (["report", "tiny"], "run the comparison first"),
        (["run", "tiny", "--snapshot-minutes", "-1"], "snapshot_minutes must not be negative"),
        (["run", "tiny", "--processes", "2"], "processes needs parallel"),
        (["run", "tiny", "--ray-address", "localhost:6379"], "only --launcher ray uses"),
        (["zero-shot", "nowhere"], "nowhere" if importlib.util.find_spec("lm_eval") else "pip install -e '.[lm-eval]'"),
        (["check", "tansformer"], "Did you mean 'transformer'"),
        (["check", "retnet", "--set", "foo.x=1"], "not checked here"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(results, capsys, arguments, says):
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1 and error.startswith("bench.py: ")
    assert not (results / "tiny" / "rows.jsonl").exists()


def test_a_broken_plan_is_named(results, capsys):
    (results / "tiny" / "plan.toml").write_text("title = ")
    assert bench.main(["run", "tiny"]) == 2
    assert "plan.toml" in capsys.readouterr().err


def test_dry_run_prints_the_cells_and_measures_nothing(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert bench.main(["run", "tiny", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "5 cells, 5 to be measured" in printed and "deltanet on needle, seed 1" in printed
    assert "FLOPs of training" in printed.replace("\n", " ")
    assert not (results / "tiny" / "rows.jsonl").exists()


def test_the_key_follows_code_settings_and_budget(results):
    from results import plan as plans

    plan = plans.load(results / "tiny")
    keys = [
        identify(cell).key
        for changed in (plan, plan.with_overrides(steps=3), plan.with_overrides(settings={"deltanet": {"kernel": 3}}))
        for cell in plans.cells(changed, registry.names())
        if cell.model == "deltanet" and cell.seed == 0
    ]
    assert len(set(keys)) == 3


def test_a_killed_run_goes_on_and_measures_nothing_twice(project):
    plan = project / "results" / "tiny" / "plan.toml"
    plan.write_text(PLAN.format(steps=60))
    rows = project / "results" / "tiny" / "rows.jsonl"
    run = subprocess.Popen(
        [sys.executable, "bench.py", "run", "tiny"], cwd=project, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    for _ in range(600):
        if rows.exists() and len({row["cell"] for row in record.read(rows)}) >= 2:
            break
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = record.read(rows)
    assert before
    pair = [subprocess.Popen([sys.executable, "bench.py", "run", "tiny"], cwd=project) for _ in range(2)]
    assert [process.wait(timeout=200) for process in pair] == [0, 0]
    after = record.read(rows)
    assert after[: len(before)] == before
    assert len({row["cell"] for row in after}) == 5
    numbers = [(row["cell"], row["model"], row["metric"], json.dumps(row["where"], sort_keys=True)) for row in after]
    assert len(numbers) == len(set(numbers))


def test_a_baseline_is_one_file(project, tmp_path):
    page = (ROOT / "docs" / "add_a_baseline.md").read_text()
    source = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "@register" in block)
    (project / "baselines" / "second_generation" / "hgrn2.py").write_text(source)
    mine = tmp_path / "mine.py"
    mine.write_text(source.replace('"hgrn2"', '"my-hgrn2"'))
    assert "hgrn2" in call(project, "list").stdout
    assert call(project, "check", "hgrn2").returncode == 0
    assert call(project, "check", str(mine)).returncode == 0
    done = call(project, "run", "tiny", "--models", f"transformer,hgrn2,{mine}")
    assert done.returncode == 0, done.stderr
    report = project / "results" / "tiny" / "report"
    table = (report / "tables" / "needle.md").read_text()
    assert "| hgrn2 |" in table and "| my-hgrn2 |" in table and "**yours**" in table
    assert any("hgrn2" in figure.read_text() for figure in (report / "figures").glob("*.svg"))
    rows = record.read(project / "results" / "tiny" / "rows.jsonl")
    assert {row["family"] for row in rows if row["model"] == "hgrn2"} == {"second_generation"}
    assert {row["family"] for row in rows if row["model"] == "my-hgrn2"} == {"yours"}


def test_the_readme_shows_the_registry():
    text = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- models: .*? -->\n(.*?)\n?<!-- end of models -->", text, re.DOTALL).group(1)
    assert table == models_markdown(), "paste the output of `python bench.py list --markdown` into the README"


def test_rows_are_adopted_as_reference_once_all_are_there(results, capsys):
    assert bench.main(["report", "tiny", "--adopt"]) == 2
    assert "5 cells of tiny are not measured here" in capsys.readouterr().err
    cells = bench.plans.cells(bench.plans.load(results / "tiny"), registry.names())
    rows = results / "tiny" / "rows.jsonl"
    for cell in cells:
        measured = record.Measured(
            measurements=[("floor: x" if not cell.model else None, "compact_exact_match", 0.5, 2, {})]
        )
        record.append(rows, record.rows(cell, identify(cell), measured))
    assert bench.main(["report", "tiny", "--adopt"]) == 0
    reference = results / "tiny" / "reference"
    assert record.read(reference / "rows.jsonl") == record.read(rows)
    assert (reference / "report.md").exists() and not (reference / "rows.jsonl").exists()


@pytest.fixture
def measured(results) -> Path:
    """The folder of `tiny`, measured in this process, with a timing."""
    plan = results / "tiny" / "plan.toml"
    timing = '[[timings]]\nname = "throughput"\nmodels = ["deltanet"]\nlengths = [8]\nrepeats = 1\ndecode = 2\n'
    plan.write_text(PLAN.format(steps=1) + timing)
    for cell in bench.plans.cells(bench.plans.load(plan), registry.names()):
        who, found = identify(cell), measure(cell, lambda progress: None)
        record.append(results / "tiny" / "rows.jsonl", record.rows(cell, who, found))
        prediction_files.write(results / "tiny" / "predictions", who.key, found.predictions)
    return results / "tiny"


def test_a_comparison_is_submitted_and_verified_and_forgeries_are_caught(measured, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert bench.main(["verify", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert " 0 differences" in printed and "machine_load" in printed and "training_loss" in printed
    assert not any(metric in printed for metric in ("exact_match", "tokens_per_second", "no predictions"))
    assert bench.main(["submit", "tiny"]) == 0
    assert "the predictions of 5 cells" in capsys.readouterr().out
    assert bench.main(["verify", "tiny", "--reference"]) == 0
    reference = measured / "reference"
    assert (reference / "plan.toml").read_bytes() == (measured / "plan.toml").read_bytes()
    capsys.readouterr()

    rows = record.read(measured / "rows.jsonl")
    place = next(
        i for i, row in enumerate(rows) if row["metric"] == "compact_exact_match" and row["model"] == "deltanet"
    )
    forged = [*rows[:place], {**rows[place], "value": 0.999}, *rows[place + 1 :]]
    record.pack(reference / "rows.jsonl", forged)
    assert bench.main(["verify", "tiny", "--reference"]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS  needle, deltanet, seed 0, compact_exact_match" in printed
    assert "rows.jsonl.xz is not the file that was packed" in printed
    assert "tables/needle.md is not what the rows give" in printed
    floor = next(i for i, row in enumerate(rows) if row["family"] == "floor" and row["value"] < 1)
    record.pack(reference / "rows.jsonl", [*rows[:floor], {**rows[floor], "value": 1.0}, *rows[floor + 1 :]])
    assert bench.main(["verify", "tiny", "--reference"]) == 1
    assert f"needle, {rows[floor]['model']}" in capsys.readouterr().out


CONTEST = """
title = "Race"
question = "Who is fastest?"
threads = 1
[[contests]]
name = "race"
level = "{level}"
reference = "deltanet"
models = ["deltanet"]
lengths = [32]
sizes = [{{ width = 16, depth = 1, heads = 2 }}]
repeats = 2
[[contests.entrants]]
name = "linear memory"
model = "titans-lmm"
settings = {{ memory_depth = 1 }}
"""
OPPONENTS = """
[[contests.entrants]]
name = "attention"
opponent = "sdpa"
[[contests.entrants]]
name = "gone"
opponent = "open-titans"
"""


def race(results, level, more=""):
    (results / "tiny" / "plan.toml").write_text(CONTEST.format(level=level) + more)
    return bench.plans.cells(bench.plans.load(results / "tiny"), registry.names())[0]


def test_a_contest_of_layers_gives_rows_for_every_entrant(results, monkeypatch):
    monkeypatch.setattr(opponents().comparison, "version", lambda package: "1" if package == "torch" else None)
    rows = measure(race(results, "layer", OPPONENTS), lambda news: None)
    by_name = {}
    for row in rows:
        record.check(row)
        by_name.setdefault(row["settings"]["variant"], {})[row["metric"]] = row
    assert list(by_name) == ["deltanet", "linear memory", "attention", "gone"]
    assert by_name["gone"][""]["status"] == "absent" and "pip install open-titans" in by_name["gone"][""]["reason"]
    for name in ("deltanet", "linear memory", "attention"):
        assert by_name[name]["time_ratio"]["count"] == 2 and by_name[name]["times_the_floor"]["value"] > 0
    lmm = by_name["linear memory"]["time_ratio"]
    assert (lmm["model"], lmm["family"], lmm["provider"]) == ("titans-lmm", "titans", "chunked")
    assert lmm["settings"]["model"] == {"memory_depth": 1} and lmm["where"] == {"length": 32}
    assert by_name["attention"]["time_ratio"]["family"] == OPPONENTS_FAMILY
    assert len({(row["cell"], row["when"]) for row in rows}) == 1


def test_an_installed_package_makes_a_contest_run_again(results, monkeypatch):
    cell = race(results, "layer", OPPONENTS)
    before = identify(cell).key
    monkeypatch.setattr(opponents().comparison, "version", lambda package: "9.9")
    assert identify(cell).key != before


def test_a_contest_of_models_runs_from_the_plan_to_the_figure(results, capsys):
    race(results, "model")
    assert bench.main(["run", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert "1 cells measured" in printed and "linear memory" in printed and "x time" in printed
    assert (results / "tiny" / "report" / "figures" / "race-ratio.svg").exists()
    assert bench.main(["run", "tiny"]) == 0 and "1 already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "more", "says"),
    [
        ("layer", '[[contests.entrants]]\nname = "x"\nopponent = "sdpaa"', "did you mean sdpa"),
        ("layer", '[[contests.entrants]]\nname = "x"\nopponent = "sdpa"\nsettings = { a = 1 }', "has no setting 'a'"),
        ("layer", '[[contests.entrants]]\nname = "x"\nmodel = "rmt"', "whole language model"),
        ("model", '[[contests.entrants]]\nname = "x"\nmodel = "retnet"\nsettings = { a = 1 }', "no setting 'a'"),
    ],
)
def test_a_wrong_entrant_is_one_sentence_before_anything_is_measured(results, capsys, level, more, says):
    race(results, level, more)
    assert bench.main(["run", "tiny"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_long_training_leaves_its_loss_by_tenths(monkeypatch):
    monkeypatch.setattr(trained, "LONG", 20)
    curve = trained._curve([float(step) for step in range(20)])
    assert [(row[2], row[3], row[4]["tenth"]) for row in curve] == [(2 * k + 0.5, 2, k + 1) for k in range(10)]
    assert trained._curve([1.0] * 19) == []


GRID = """
title = "Grid"
question = "Which rate?"
models = ["deltanet"]
seeds = [0, 1]
learning_rates = [1e-3, 1e-2]
search = { fraction = 0.5, seed = 0 }
size = { width = 16, depth = 1, heads = 2 }
budget = { tokens = 1024, batch_tokens = 256 }
[[tasks]]
name = "needle"
template = "compact"
variants = ["s-niah-1"]
length = 64
test_lengths = [64]
samples = 1
[[claims]]
text = "DeltaNet is better than attention"
source = "nobody"
better = "deltanet"
worse = "transformer"
task = "needle"
metric = "compact_exact_match"
"""


def test_a_grid_is_searched_once_and_its_best_rate_trained(results, capsys):
    (results / "tiny" / "plan.toml").write_text(GRID)
    assert bench.main(["run", "tiny", "--dry-run"]) == 0
    assert "5 cells, 5 to be measured" in capsys.readouterr().out
    assert bench.main(["run", "tiny"]) == 0
    assert "5 cells measured, 0 already there" in capsys.readouterr().out
    rows = record.read(results / "tiny" / "rows.jsonl")
    trials = [row for row in rows if row["metric"] == "validation_loss"]
    assert [row["settings"]["stage"] for row in trials] == ["trial"] * 2 and {
        row["budget"]["steps"] for row in trials
    } == {2}
    best = min(trials, key=lambda row: (row["value"], row["lr"]))["lr"]
    chosen = [row for row in rows if row["settings"].get("stage") == "chosen"]
    assert {(row["seed"], row["lr"], row["budget"]["steps"]) for row in chosen} == {(0, best, 4), (1, best, 4)}
    page = (results / "tiny" / "report" / "report.md").read_text()
    assert "optimiser: AdamW" in page and f"deltanet was trained at {best:g}" in page and "not measured here" in page
    assert bench.main(["run", "tiny"]) == 0
    assert "0 cells measured, 5 already there" in capsys.readouterr().out
