"""The command line: what it lists, what it refuses and how, and what a dry run says."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch

import bench
from models import registry
from runner.cell_key import identify
from runner.commands.list import MARKDOWN
from schema.places import ROOT
from tests.support.tiny_plan import tiny_plan


def test_list_names_every_model_task_and_comparison(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert bench.main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in (*registry.names(), "needle", "babilong", "language-modelling", "quick", "smoke"):
        assert name in printed


def test_list_tells_what_each_model_costs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    names = ["transformer", "lstm", "mamba", "titans-mac", "atlas", "hybrid"]
    assert bench.main(["list", "--costs", *names, "--size", "width=32,depth=3,heads=2", "--length", "20"]) == 0
    printed = capsys.readouterr().out
    for name in names:
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
    assert "5 cells, 5 to be measured" in printed and re.search(r"deltanet +needle +2 of 2", printed)
    assert "FLOPs of training" in printed.replace("\n", " ")
    assert not (results / "tiny" / "rows.jsonl").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is absent")
def test_a_run_on_another_machines_device_is_planned_here_and_not_measured(results, capsys):
    (results / "tiny" / "plan.toml").write_text(tiny_plan(rates="learning_rates = [1e-3, 2e-3]\ndevice = 'cuda'"))
    assert bench.main(["run", "tiny", "--dry-run"]) == 0
    assert "9 cells, 9 to be measured" in capsys.readouterr().out
    assert bench.main(["run", "tiny"]) == 2
    assert "torch sees no CUDA device here; use --device cpu" in capsys.readouterr().err
    assert not (results / "tiny" / "rows.jsonl").exists()


def test_the_key_follows_code_settings_and_budget(results):
    from results.plans import reader as plans

    plan = plans.load(results / "tiny")
    keys = [
        identify(cell).key
        for changed in (plan, plan.with_overrides(steps=3), plan.with_overrides(settings={"deltanet": {"kernel": 3}}))
        for cell in plans.cells(changed, registry.names())
        if cell.model == "deltanet" and cell.seed == 0
    ]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(("page", "table"), [("README.md", "laws"), ("docs/models.md", "updates")])
def test_pages_show_the_registry(page, table):
    text = (ROOT / page).read_text()
    shown = re.search(r"<!-- models: .*? -->\n(.*?)\n?<!-- end of models -->", text, re.DOTALL).group(1)
    assert shown == MARKDOWN[table](), f"paste the output of `python bench.py list --markdown {table}` into {page}"


def test_the_page_of_operations_says_how_each_is_called():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert text == MARKDOWN["operations"]() + "\n", (
        "write `python bench.py list --markdown operations` into docs/operations.md"
    )
    assert 'scan(q, k, v, *, log_forget=None, rate=None, compare=False, state=None, provider="auto")' in text
    assert 'short_convolution(x, weight, bias=None, state=None, *, provider="auto")' in text
