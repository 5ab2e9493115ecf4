"""What rows took: every stretch of time once, workers side by side, GPUs apart from cores."""

from __future__ import annotations

import pytest

from results.report.findings.effort import effort
from tests.support import synthetic
from tests.support.synthetic import cell, rows_of


def trained(model: str, seconds: float, seed: int = 0, **changes) -> list:
    numbers = [("training_seconds", seconds, {"tokens": 1000}), ("evaluation_seconds", 10.0, {})]
    one = synthetic.variant(cell(model, "needle", seed=seed), **changes)
    return rows_of(one, [(None, metric, value, 1, where) for metric, value, where in numbers])


def test_trainings_run_side_by_side_and_timings_alone():
    rows = trained("retnet", 100.0) + trained("mamba", 90.0)
    rows += rows_of(cell("retnet", "throughput", "timing"), [(None, "timing_seconds", 60.0, 1, {})])
    rows += rows_of(cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.1, 9, {})])
    found = effort(rows)
    assert found.core_seconds == 100 + 10 + 90 + 10 + 60 * 2 and found.gpu_seconds == 0
    assert found.minutes(2) == pytest.approx((210 / 2 + 60) / 60) and found.minutes(1) == pytest.approx(270 / 60)
    assert (found.tokens, found.cells, found.untimed, found.failed) == (2000, 3, 1, 0)


def test_a_training_that_two_cells_examine_and_the_time_that_candidates_share_count_once():
    rows = trained("transformer", 50.0) + trained("transformer", 50.0, variant="transformer-ntk")
    assert effort(rows).core_seconds == 50 + 2 * 10 and effort(rows).tokens == 1000
    of_one = effort(rows, lambda row: row["settings"].get("variant") == "transformer-ntk")
    assert of_one.core_seconds == 60  # alone it would have to be trained
    (timed,) = rows_of(cell("retnet", "throughput", "timing"), [(None, "timing_seconds", 20.0, 1, {})])
    shared = [timed | {"model": name} for name in "ab"]
    assert effort(shared).alone == 20.0


def test_a_gpus_hours_are_no_cores_and_what_failed_is_told():
    rows = trained(
        "retnet", 100.0, device="cuda", budget={"steps": 1, "batch_tokens": 9, "parallel": "ddp", "processes": 4}
    )
    rows += rows_of(cell("mamba", "needle"), [], reason="out of memory")
    found = effort(rows)
    assert (found.core_seconds, found.gpu_seconds) == (0, 440) and (found.failed, found.untimed) == (1, 1)
    assert effort([]).minutes(2) is None
