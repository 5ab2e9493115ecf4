"""Packs and their verification: what is forged by hand is found, and what nobody can check is named."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest

from results.cell import Cell
from results.rows import predictions, store, submission, verification
from results.rows import row as identity

CELL = Cell(
    comparison="made-up", kind="training", model="retnet", settings={}, task="needle", task_settings={"length": 64},
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 2, "batch_tokens": 64}, seed=0, lr=0.003,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip
RECORDS = [{"exam": 0, "hits": "0110"}, {"exam": 1, "hits": "1111"}]


def numbers(model, records) -> list:
    return [
        (model, "exact_match", r["hits"].count("1") / len(r["hits"]), len(r["hits"]), {"exam": r["exam"]})
        for r in records
    ]


def rederive(rows, records):
    if records is None:
        return verification.Again([], "no predictions were kept")
    same_code = rows[0]["code_hash"] == "code"
    return verification.Again(numbers(rows[0]["model"], records), "measured once", same_code)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A comparison with one measured cell and one that failed."""
    (tmp_path / "plan.toml").write_text("title = 'Made up'\n")
    who = identity.Identity(identity.key(CELL, "data", "code"), "first_generation", 1, "code", "data")
    found = [*numbers(None, RECORDS), (None, "training_seconds", 3.0, 2, {})]
    rows = identity.rows(CELL, who, identity.Measured(10, 10, "trained", "chunked", found))
    store.append(tmp_path / "rows.jsonl", rows)
    predictions.write(tmp_path / "predictions", who.key, RECORDS)
    return tmp_path


def verdict(rows: list, folder: Path) -> verification.Verification:
    return verification.verify(rows, folder / "predictions", rederive)


def test_true_rows_hold_and_what_cannot_be_had_again_is_named(folder):
    found = verdict(store.read(folder / "rows.jsonl"), folder)
    assert found.held == 2 and found.differences == []
    assert {why: [row["metric"] for row in rows] for why, rows in found.unknown.items()} == {
        "measured once": ["training_seconds"]
    }
    predictions.write(folder / "predictions", store.read(folder / "rows.jsonl")[0]["cell"], [])
    found = verdict(store.read(folder / "rows.jsonl"), folder)
    assert found.held == 0 and found.differences == [] and len(found.unknown["no predictions were kept"]) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": 0.75}, "the row says 0.75 over 4, its predictions 0.5 over 4"),
        ({"value": 0.5 + 1e-6}, "its predictions 0.5 over 4"),
        ({"count": 400}, "the row says 0.5 over 400"),
        ({"seed": 7}, "its columns are those of cell"),
        ({"lr": 0.001}, "its columns are those of cell"),
        ({"budget": {"steps": 2000, "batch_tokens": 64}}, "its columns are those of cell"),
        ({"code_hash": "other"}, "its columns are those of cell"),
        ({"model": "titans-mac"}, "its columns are those of cell"),
        ({"where": {"exam": 5}}, "that no row has"),
    ],
)
def test_a_row_forged_by_hand_is_caught(folder, change, says):
    rows = store.read(folder / "rows.jsonl")
    forged = [{**rows[0], **change}, *rows[1:]]
    differences = verdict(forged, folder).differences
    assert any(says in difference for difference in differences)
    assert any(says in d for d in differences) and not any(says in d for d in verdict(rows, folder).differences)


def test_the_rows_of_a_trial_are_held_against_its_key(folder):
    trial = dataclasses.replace(CELL, kind="trial", stage="trial", where={"split": "validation", "full_steps": 8})
    who = identity.Identity(identity.key(trial, "data", "code"), "first_generation", 1, "code", "data")
    found = [(None, "validation_loss", 1.5, 10, trial.where), (None, "training_seconds", 3.0, 2, {"tokens": 128})]
    rows = identity.rows(trial, who, identity.Measured(10, None, "trained", "chunked", found))
    assert verdict(rows, folder).differences == []
    failed = identity.failure(trial, who, "diverged")
    assert verdict(failed, folder).differences == []
    for change in ({"lr": 0.001}, {"seed": 7}, {"where": {"split": "validation", "full_steps": 800}}):
        differences = verdict([{**rows[0], **change}, *rows[1:]], folder).differences
        assert any("its columns are those of cell" in one for one in differences)


def test_a_row_that_was_taken_away_is_missed(folder):
    rows = store.read(folder / "rows.jsonl")
    assert any("that no row has" in difference for difference in verdict(rows[1:], folder).differences)


def test_a_row_that_nothing_gives_again_is_missed_where_the_other_seeds_have_one(tmp_path):
    def rows_of(seed: int) -> list:
        cell = dataclasses.replace(CELL, seed=seed)
        who = identity.Identity(identity.key(cell, "data", "code"), "first_generation", 1, "code", "data")
        found = [*numbers(None, RECORDS), (None, "training_seconds", 3.0 + seed, 2, {})]
        predictions.write(tmp_path / "predictions", who.key, RECORDS)
        return identity.rows(cell, who, identity.Measured(10, 10, "trained", "chunked", found))

    whole = [row for seed in range(3) for row in rows_of(seed)]
    assert verdict(whole, tmp_path).differences == []
    (missed,) = verdict(whole[:-1], tmp_path).differences
    assert "seed 2" in missed and "training_seconds" in missed and "all other 2 seeds" in missed


def test_a_forged_prediction_is_caught_by_its_marks_and_by_its_hash(folder):
    rows = store.read(folder / "rows.jsonl")
    packed = submission.pack(folder, folder / "plan.toml", rows)
    reference = folder / "reference"
    assert packed.cells == 1 and packed.left_out == {} and submission.differences(reference) == []
    assert verdict(store.read(reference / "rows.jsonl"), reference).held == 2
    better = copy.deepcopy(RECORDS)
    better[0]["hits"] = "1111"
    predictions.write(reference / "predictions", rows[0]["cell"], better)
    assert ["its hash differs" in d for d in submission.differences(reference)] == [True]
    assert any("its predictions 1 over 4" in difference for difference in verdict(rows, reference).differences)
    forged = [{**rows[0], "value": 1.0}, *rows[1:]]  # row and prediction made to agree: the hashes still tell
    store.pack(reference / "rows.jsonl", forged)
    assert verdict(store.read(reference / "rows.jsonl"), reference).differences == []
    assert len(submission.differences(reference)) == 2


def test_files_beside_the_manifest_are_named(folder):
    submission.pack(folder, folder / "plan.toml", store.read(folder / "rows.jsonl"))
    reference = folder / "reference"
    (kept,) = (reference / "predictions").iterdir()
    kept.rename(kept.with_name("0123.jsonl.xz"))
    assert submission.differences(reference) == [
        f"predictions/{kept.name} is in the manifest but missing.",
        "predictions/0123.jsonl.xz is not in the manifest.",
    ]
    (reference / "manifest.json").write_text("{")
    with pytest.raises(submission.SubmissionError, match="submit the comparison again"):
        submission.differences(reference)


def test_predictions_under_another_cells_name_or_damaged_are_a_difference(folder):
    rows = store.read(folder / "rows.jsonl")
    path = predictions.path_of(folder / "predictions", rows[0]["cell"])
    predictions.write(folder / "predictions", "other", RECORDS)
    path.write_bytes(predictions.path_of(folder / "predictions", "other").read_bytes())
    assert any("says that it is" in difference for difference in verdict(rows, folder).differences)
    path.write_bytes(b"nothing packed")
    assert any("is damaged" in difference for difference in verdict(rows, folder).differences)


def test_predictions_that_are_too_large_stay_behind_and_are_named(folder, monkeypatch):
    monkeypatch.setattr(submission, "LARGEST", 10)
    packed = submission.pack(folder, folder / "plan.toml", store.read(folder / "rows.jsonl"))
    assert packed.cells == 0 and ["more than 10" in why for why in packed.left_out.values()] == [True]
    assert submission.differences(folder / "reference") == []
    with pytest.raises(submission.SubmissionError, match="run the comparison first"):
        submission.pack(folder, folder / "plan.toml", [])
