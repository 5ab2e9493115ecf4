"""Cells that several processes train or several machines measure: the numbers of one process."""

from __future__ import annotations

import dataclasses
import math

import pytest

from results.cell import Cell
from results.rows import store
from runner.cell_key import identify
from runner.measure import measure, prepare
from runner.preflight.refusals import check_cells
from runner.schedule import schedule

TIMES = ("training_seconds", "evaluation_seconds", "timing_seconds", "training_peak_memory_bytes")


def cell(model: str = "gated-deltanet", **budget) -> Cell:
    return Cell(
        comparison="shared", kind="training", model=model, settings={}, task="needle",
        task_settings={"template": "compact", "variants": ["s-niah-1"], "length": 96, "test_lengths": [96], "samples": 2},
        size={"width": 32, "depth": 1, "heads": 2}, budget={"steps": 4, "batch_tokens": 576, **budget}, seed=0, lr=3e-3,
        dtype="float32", provider="auto", device="cpu", threads=1,
    )  # fmt: skip


def numbers(path, key: str) -> dict[tuple, float]:
    rows = [row for row in store.read(path) if row["cell"] == key]
    assert all(row["status"] == "ok" for row in rows), [row["reason"] for row in rows]
    return {(row["metric"], repr(row["where"])): row["value"] for row in rows if row["metric"] not in TIMES}


def run(cells, path, **options):
    return schedule.run(cells, measure, identify, path, initializer=prepare, **options)


@pytest.mark.slow
def test_a_cell_of_two_processes_gives_the_rows_of_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    one, two = cell(), cell(parallel="ddp", processes=2)
    check_cells([one, two])
    assert run([one, two], path).measured == 2
    alone, shared = (numbers(path, identify(c).key) for c in (one, two))
    assert shared == pytest.approx(alone, abs=1e-5)
    assert any(metric == "training_loss" and math.isfinite(value) for (metric, _), value in shared.items())
    row = next(row for row in store.read(path) if row["cell"] == identify(two).key)
    assert (row["budget"]["parallel"], row["budget"]["processes"]) == ("ddp", 2)
    assert store.key(two) != store.key(one)


def test_rows_that_cannot_be_shared_are_a_failed_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    odd = cell(parallel="fsdp2", processes=5)
    assert run([odd], path).failed == 1
    assert "cannot be shared evenly by 5 processes" in store.read(path)[0]["reason"]


def test_an_impossible_process_group_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match="install one that has|lower --processes|sees no CUDA device"):
        check_cells([dataclasses.replace(cell(parallel="ddp", processes=1000), device="cuda")])


def test_two_ray_workers_give_the_rows_of_one_process(tmp_path):
    pytest.importorskip("ray", reason="the launcher ray is optional: pip install -e '.[ray]'")
    from runner.schedule.ray_cluster import RayCluster

    cells = [cell(), cell("rmt")]
    here, there = tmp_path / "here" / "rows.jsonl", tmp_path / "there" / "rows.jsonl"
    for path in (here, there):
        path.parent.mkdir()
    run(cells, here)
    with RayCluster(at_once=2) as cluster:
        assert run(cells, there, cluster=cluster).measured == 2
    for one in cells:
        assert numbers(there, identify(one).key) == numbers(here, identify(one).key)
