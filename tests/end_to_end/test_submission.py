"""What a comparison measured here becomes: its reference, once all is there, and a submission that shows forgeries."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from models import registry
from results.plans import reader as plans
from results.rows import predictions, store
from runner.cell_key import identify
from runner.measure import measure
from tests.support.tiny_plan import tiny_plan


def test_rows_are_adopted_as_reference_once_all_are_there(results, capsys):
    assert bench.main(["report", "tiny", "--adopt"]) == 2
    assert "5 cells of tiny still to be measured here" in capsys.readouterr().err
    cells = plans.cells(plans.load(results / "tiny"), registry.names())
    rows = results / "tiny" / "rows.jsonl"
    for cell in cells:
        measured = store.Measured(
            measurements=[("floor: x" if not cell.model else None, "compact_exact_match", 0.5, 2, {})]
        )
        store.append(rows, store.rows(cell, identify(cell), measured))
    assert bench.main(["report", "tiny", "--adopt"]) == 0
    reference = results / "tiny" / "reference"
    assert store.read(reference / "rows.jsonl") == store.read(rows)
    assert (reference / "report.md").exists() and not (reference / "rows.jsonl").exists()


@pytest.fixture
def measured(results) -> Path:
    """The folder of `tiny`, measured in this process, with a timing."""
    plan = results / "tiny" / "plan.toml"
    timing = '[[timings]]\nname = "throughput"\nmodels = ["deltanet"]\nlengths = [8]\nrepeats = 1\ndecode = 2\n'
    plan.write_text(tiny_plan(budget="steps = 1, batch_tokens = 256") + timing)
    for cell in plans.cells(plans.load(plan), registry.names()):
        who, found = identify(cell), measure(cell, lambda progress: None)
        store.append(results / "tiny" / "rows.jsonl", store.rows(cell, who, found))
        predictions.write(results / "tiny" / "predictions", who.key, found.predictions)
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

    rows = store.read(measured / "rows.jsonl")
    place = next(
        i for i, row in enumerate(rows) if row["metric"] == "compact_exact_match" and row["model"] == "deltanet"
    )
    forged = [*rows[:place], {**rows[place], "value": 0.999}, *rows[place + 1 :]]
    store.pack(reference / "rows.jsonl", forged)
    assert bench.main(["verify", "tiny", "--reference"]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS  needle, deltanet, seed 0, compact_exact_match" in printed
    assert "rows.jsonl.xz is not the file that was packed" in printed
    assert "tables/needle.md is not what the rows give" in printed
    floor = next(i for i, row in enumerate(rows) if row["family"] == "floor" and row["value"] < 1)
    store.pack(reference / "rows.jsonl", [*rows[:floor], {**rows[floor], "value": 1.0}, *rows[floor + 1 :]])
    assert bench.main(["verify", "tiny", "--reference"]) == 1
    assert f"needle, {rows[floor]['model']}" in capsys.readouterr().out
