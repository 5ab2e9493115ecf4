"""`bench.py export-results`: files in a new folder, refused in one sentence."""

from __future__ import annotations

import json

import pytest

import bench
from results.rows import store
from tests.support.synthetic import cell, rows_of, variant


@pytest.fixture
def measured(results):
    one = variant(cell("retnet", "needle"), comparison="tiny")
    store.append(results / "tiny" / "rows.jsonl", rows_of(one, [(None, "accuracy", 0.5, 9, {"length": 64})]))
    return results


def test_records_are_written(measured, tmp_path, capsys):
    assert bench.main(["export-results", "tiny", str(tmp_path / "out"), "--format", "every-eval-ever"]) == 0
    (path,) = (tmp_path / "out").rglob("*.json")
    assert json.loads(path.read_text())["evaluation_results"][0]["score_details"]["score"] == 0.5
    command = ["export-results", "tiny", str(tmp_path / "hub"), "--format", "hugging-face", "--dataset", "me/it"]
    assert bench.main(command) == 0 and "1 files" in capsys.readouterr().out
    (path,) = (tmp_path / "hub").rglob("*.yaml")
    assert path.parent.name == ".eval_results" and "  value: 50.0" in path.read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["out"], "the following arguments are required: --format"),
        (["out", "--format", "every-eval-evr"], "did you mean every-eval-ever?"),
        (["out", "--format", "hugging-face"], "needs --dataset OWNER/NAME"),
        (["out", "--format", "hugging-face", "--dataset", "it"], "called OWNER/NAME, not 'it'"),
        (["out", "--format", "every-eval-ever", "--dataset", "me/it"], "--dataset says something of the hub"),
        (["tiny", "--format", "every-eval-ever"], "is not empty; name a new folder"),
    ],
)
def test_what_is_refused(measured, capsys, monkeypatch, more, says):
    monkeypatch.chdir(measured)
    assert bench.main(["export-results", "tiny", *more]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (measured / "out").exists()


def test_without_rows_nothing_is_written(results, tmp_path, capsys):
    assert bench.main(["export-results", "tiny", str(tmp_path / "out"), "--format", "every-eval-ever"]) == 2
    assert "run the comparison first" in capsys.readouterr().err and not (tmp_path / "out").exists()
