"""Verifying a side-by-side benchmark: its seconds and ratios follow from the rows of its rounds, and a forged one does not."""

from __future__ import annotations

import pytest

from results.cell import Cell
from results.rows import verification
from runner.again.rederived import rederive
from runner.measure import measure

SETTINGS = {"level": "layer", "reference": "linear, b = 8", "batch": 1, "limit": 60.0}


def memory(name: str, chunk: int) -> dict:
    settings = {"memory_depth": 1, "chunk": chunk}
    return {"name": name, "model": "titans-lmm", "opponent": "", "settings": settings, "repeats": 3, "longest": None}


@pytest.fixture(scope="module")
def contest():
    cell = Cell(
        "race", "contest", "", {}, "race", SETTINGS, {"width": 16, "depth": 1, "heads": 2}, {}, 0, 0.0, "float32",
        "auto", "cpu", 1, where={"length": 32}, entrants=[memory("linear, b = 8", 8), memory("linear, b = 1", 1)],
    )  # fmt: skip
    return measure(cell, lambda news: None)


def verdict(rows, folder):
    return verification.verify(rows, folder, rederive)


def test_seconds_and_ratios_of_each_entrant_hold(contest, tmp_path):
    found = verdict(contest, tmp_path)
    assert (
        found.differences == [] and found.held == 2 * 2 * 6
    )  # candidates, clocks, seconds and ratios with two quantiles
    (rest,) = found.unknown.values()
    assert {"peak_memory_bytes", "training_step_seconds_sample"} <= {row["metric"] for row in rest}


@pytest.mark.parametrize("metric", ["training_step_seconds", "time_ratio", "cpu_time_ratio_quantile_90"])
def test_a_forged_figure_is_told(contest, tmp_path, metric):
    place = max(place for place, row in enumerate(contest) if row["metric"] == metric)
    forged = [{**row, "value": row["value"] / 2} if i == place else row for i, row in enumerate(contest)]
    (difference,) = verdict(forged, tmp_path).differences
    assert metric in difference and "its samples" in difference


def test_a_ratio_left_out_is_told(contest, tmp_path):
    kept = [row for row in contest if row["metric"] != "time_ratio"]
    (difference,) = verdict(kept, tmp_path).differences
    assert "its samples give 2 numbers that no row has" in difference
