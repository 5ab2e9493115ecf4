"""A dry run of every committed plan: it reads and downloads no data, fits eighty columns, and leaves no time unsaid."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import pkgutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

import bench
import tasks
from runner.commands.shared import terminal
from runner.schedule.forecast import SECTIONS
from schema.places import ROOT
from tasks.babilong.babi import released
from tasks.text import byte_pair, corpus, files, named, tokenizer

FILES = sorted((ROOT / "results" / "comparisons").glob("*/*/*.toml"))
READERS = {  # whatever of the house reads or fetches data
    corpus: ("documents", "texts", "data_hash", "version"),
    files: ("read", "listed"),
    named: ("prepared",),
    released: ("items", "data_hash", "version"),
    tokenizer: ("create", "encoded"),
    byte_pair: ("trained", "gpt2"),
    urllib.request: ("urlopen",),
}


def comparison(file: Path) -> str:
    return file.parent.name if file.stem == "plan" else f"{file.parent.name}/{file.stem}"


@pytest.fixture
def no_data(monkeypatch):
    """Every reader of data is an error."""
    for module in pkgutil.walk_packages(
        tasks.__path__, "tasks."
    ):  # what is first imported later would keep the error for good
        importlib.import_module(module.name)

    def refuse(*asked, **named):
        raise AssertionError("a dry run asked for data")

    for module, names in READERS.items():
        for name in names:
            monkeypatch.setattr(module, name, refuse)


def dry_run(name: str, monkeypatch) -> list[str]:
    """The lines of a dry run on a terminal of eighty columns."""
    text = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: Console(width=80, file=text))
    with contextlib.redirect_stderr(text):
        assert bench.main(["run", name, "--dry-run"]) == 0, text.getvalue()
    return text.getvalue().splitlines()


def held(name: str, monkeypatch) -> None:
    lines = dry_run(name, monkeypatch)
    assert max(map(len, lines)) <= 80
    head = next(index for index, line in enumerate(lines) if line.split()[:3] == ["model", "task", "to"])
    is_row = lambda line: " cells, " not in line and line.split()[:1] != ["model"]  # noqa: E731
    rows = [line for line in itertools.takewhile(is_row, lines[head + 1 :]) if line.strip() not in SECTIONS.values()]
    assert rows and not any("…" in row for row in rows)
    assert all(" of " in row for row in rows), "a row of the table takes two lines"


def test_a_dry_run_reads_no_data_and_fits_eighty_columns(no_data, monkeypatch):
    held("smoke", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=comparison)
def test_a_dry_run_of_every_plan_reads_no_data_and_fits_eighty_columns(file, no_data, monkeypatch):
    held(comparison(file), monkeypatch)


def test_a_forecast_loads_neither_plots_nor_tables_nor_a_compiler():
    """Each takes longer to be imported than a small forecast takes."""
    code = (
        "import sys, bench; assert bench.main(['run', 'smoke', '--dry-run']) == 0\n"
        "slow = {'matplotlib', 'pandas', 'transformers', 'ray', 'torch._dynamo', 'sympy', 'scipy'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_costs_are_listed_of_the_models_of_a_file(tmp_path, capsys):
    size = ["--size", "width=32,depth=1,heads=2", "--length", "20"]
    assert bench.main(["list", "--costs", "retnet", *size]) == 0
    shown = capsys.readouterr().out
    assert "retnet" in shown and "mamba2" not in shown
    assert bench.main(["list", "--costs", str(tmp_path / "absent.py"), *size]) == 2
    assert bench.main(["list", "--costs", "retne", *size]) == 2
    assert "retnet" in capsys.readouterr().err
    assert bench.main(["list", "retnet"]) == 2
    assert "--costs" in capsys.readouterr().err
    for flag in ("--size", "--length"):
        assert bench.main(["list", flag, "width=32" if flag == "--size" else "7"]) == 2
        assert f"list takes {flag} with --costs alone" in capsys.readouterr().err


def test_a_misspelt_comparison_is_told_the_nearest(capsys):
    assert bench.main(["run", "quik", "--dry-run"]) == 2
    assert "did you mean quick" in capsys.readouterr().err
