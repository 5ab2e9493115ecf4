"""Trainings as a run measures them: the rate that a grid finds, and the loss of long ones."""

from __future__ import annotations

import shutil

import bench
from results.rows import store, submission
from runner import training
from tests.support.tiny_plan import tiny_plan

GRID = (
    tiny_plan(
        models=["deltanet", "transformer"],
        rates="learning_rates = [1e-3, 1e-2]\nsearch = { fraction = 0.5, seed = 0, widen = 1 }",
        budget="tokens = 1024, batch_tokens = 256",
    )
    + """
[[claims]]
text = "DeltaNet is better than attention"
source = "nobody"
better = "deltanet"
worse = "transformer"
task = "needle"
metric = "compact_exact_match"
"""
)


# The claim's other model is not measured; a worker takes longer to start than these trainings take.
ALONE = ["--models", "deltanet", "--workers", "1"]


def test_a_long_training_leaves_its_loss_by_tenths(monkeypatch):
    monkeypatch.setattr(training, "LONG", 20)
    curve = training._curve([float(step) for step in range(20)])
    assert [(row[2], row[3], row[4]["tenth"]) for row in curve] == [(2 * k + 0.5, 2, k + 1) for k in range(10)]
    assert training._curve([1.0] * 19) == []


def test_a_grid_is_searched_once_and_its_best_rate_trained(results, capsys):
    (results / "tiny" / "plan.toml").write_text(GRID)
    assert bench.main(["run", "tiny", *ALONE, "--dry-run"]) == 0
    assert "5 cells, 5 to be measured" in capsys.readouterr().out
    assert bench.main(["run", "tiny", *ALONE]) == 0
    assert "6 cells measured, 0 already there" in capsys.readouterr().out
    rows = store.read(results / "tiny" / "rows.jsonl")
    trials = [row for row in rows if row["metric"] == "validation_loss"]
    assert [row["settings"]["stage"] for row in trials] == ["trial"] * 3 and {
        row["budget"]["steps"] for row in trials
    } == {2}
    assert len({row["lr"] for row in trials} - {1e-3, 1e-2}) == 1  # of two rates one is an edge: the grid grows there
    best = min(trials, key=lambda row: (row["value"], row["lr"]))["lr"]
    chosen = [row for row in rows if row["settings"].get("stage") == "chosen"]
    assert {(row["seed"], row["lr"], row["budget"]["steps"]) for row in chosen} == {(0, best, 4), (1, best, 4)}
    page = (results / "tiny" / "report" / "report.md").read_text()
    assert "optimiser: AdamW" in page and f"deltanet ({best:g})" in page and "not measured here" in page
    assert bench.main(["run", "tiny", *ALONE]) == 0
    assert "0 cells measured, 6 already there" in capsys.readouterr().out
    _goes_on_from_what_is_committed(results / "tiny", capsys)


def _goes_on_from_what_is_committed(tiny, capsys):
    """Without rows of its own a run takes the trials, then what they decide, and measures nothing; a dry run leaves all."""
    submission.pack(tiny, tiny / "plan.toml", store.read(tiny / "rows.jsonl"))
    (tiny / "rows.jsonl").unlink()
    shutil.rmtree(tiny / "predictions")
    capsys.readouterr()
    assert bench.main(["run", "tiny", *ALONE, "--from-committed", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("6 cells of the committed rows count as measured here") and "6 cells, 0 to be measured" in said
    )
    assert not (tiny / "rows.jsonl").exists()
    assert bench.main(["run", "tiny", *ALONE, "--from-committed"]) == 0
    assert "0 cells measured, 6 already there" in capsys.readouterr().out
    rows = store.read(tiny / "rows.jsonl")
    without = [row for row in rows if row["settings"].get("stage") != "trial"]
    submission.pack(tiny, tiny / "plan.toml", without)
    (tiny / "rows.jsonl").unlink()
    assert bench.main(["run", "tiny", *ALONE, "--from-committed"]) == 0
    assert "3 cells measured, 3 already there" in capsys.readouterr().out, (
        "trainings at the rates that new trials choose"
    )
    assert bench.main(["verify", "tiny"]) == 0 and bench.main(["run", "tiny", *ALONE, "--from-committed"]) == 0
    assert "0 cells of the committed rows count as measured here: none was" in capsys.readouterr().out
