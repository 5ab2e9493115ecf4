"""What a dry run says of time, operations and memory."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from results.plans import reader as plans
from results.rows import store
from results.rows.store import Identity, Measured
from runner.schedule.forecast import OWN_TIME, Cost, Rate, expected_seconds, forecast
from tests.support.fake_measure import cell

PLAN = """
title = "One"
question = "How long?"
models = ["retnet"]
seeds = [0, 1]
learning_rate = 1e-3
workers = 2
size = "nano"
budget = { steps = 10, batch_tokens = 64 }
[[tasks]]
name = "needle"
"""


def rows(one, training: float, evaluation: float) -> list[dict]:
    found = [
        (None, "training_seconds", training, 10, {"tokens": 640}),
        (None, "evaluation_seconds", evaluation, 1, {}),
    ]
    return store.rows(one, Identity("past"), Measured(measurements=found))


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    return plans.load(tmp_path)


def printed(table, line) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(table, line)
    return console.export_text()


def test_a_kept_model_costs_its_exam_only():
    one = cell("retnet")
    past = rows(one, 100.0, 7.0)
    assert expected_seconds(one, past) == 107.0 + OWN_TIME
    assert expected_seconds(one, past, is_trained=True) == 7.0 + OWN_TIME
    assert expected_seconds(one, [], is_trained=True) is None


def test_timings_under_the_same_settings_count_first_and_others_are_told(plan):
    slow = dataclasses.replace(cell("retnet"), settings={"chunk": 1}, variant="slow")
    renamed = dataclasses.replace(slow, variant="renamed")
    past = rows(cell("retnet"), 10.0, 1.0) + rows(slow, 50.0, 2.0)
    assert expected_seconds(renamed, past) == 52.0 + OWN_TIME
    assert expected_seconds(cell("retnet"), list(reversed(past))) == 11.0 + OWN_TIME
    found = [cell("retnet"), dataclasses.replace(slow, settings={"chunk": 2})]
    assert "1 cell timed under other settings" in printed(*forecast(plan, found, nothing, past))
    assert "other settings" not in printed(*forecast(plan, found[:1], nothing, past))


def nothing(cell) -> None:
    """Nothing stands yet."""


def test_operations_and_memory_are_printed_and_summed_over_what_is_missing(plan):
    cells = plans.cells(plan, ["retnet"])
    costs = {0: Cost(1.5e12, 3 * 2**20), 1: Cost(2e12, 5 * 2**20, is_trained=True)}
    known = lambda cell: Cost() if cell.kind == "floors" else costs[cell.seed]  # noqa: E731
    shown = printed(*forecast(plan, cells, nothing, [], known)).replace("\n", " ")
    assert (
        "1.5e+12" in shown
        and "5.0 MiB" in shown
        and "1 of them examined only" in shown
        and "2 of unknown time" in shown
    )
    assert "1.5e+12 FLOPs of training; the largest takes 5.0 MiB of memory or more" in shown
    plain = printed(*forecast(plan, cells, nothing, []))
    assert "FLOPs of training" not in plain and "examined only" not in plain


def test_what_was_never_timed_is_scaled_by_its_operations_or_said_to_be_unknown(plan):
    cells = [cell for cell in plans.cells(plan, ["retnet"]) if cell.kind == "training"]
    slow = Rate(1e9, "a stated rate")
    shown = printed(*forecast(plan, cells, nothing, [], lambda cell: Cost(3.6e14, 1, rate=lambda: slow))).replace(
        "\n", " "
    )
    assert "an estimate of 200 GPU hours" in shown and "at a stated rate" in shown and "minutes" not in shown
    shown = printed(*forecast(plan, cells, nothing, [])).replace("\n", " ")
    assert "2 of unknown time" in shown and "about" not in shown


def test_a_row_is_a_model_and_a_task_and_fits_eighty_columns(plan):
    cells = plans.cells(plan, ["retnet"])
    table, _ = forecast(
        plan, cells, nothing, [], lambda cell: Cost(3.6e14, 2**40, rate=lambda: Rate(1e9, "a stated rate"))
    )
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(table)
    lines = [line for line in console.export_text().splitlines() if "needle" in line]
    assert table.row_count == 2 and len(lines) == 2 and not any("…" in line for line in lines)
