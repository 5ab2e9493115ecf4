"""Further seeds for open claims: for whom, how many, until when, and the same after a run that was broken off."""

from __future__ import annotations

import pytest

from results.plans import reader as plans
from results.rows import row as identity
from runner.schedule import further_seeds
from tests.support import synthetic

NAMES = ["transformer", "retnet", "mamba", "deltanet"]
PLAN = """
title = "Looks"
question = "Who finds more?"
models = ["all"]
seeds = [0, 1, 2, 3, 4]
looks = { most_seeds = 15 }
learning_rate = 1e-3
size = "nano"
budget = { steps = 200, batch_tokens = 8 }
[[tasks]]
name = "needle"
[[tasks]]
name = "babilong"
[[claims]]
text = "RetNet finds more than attention"
source = "nobody"
better = "retnet"
worse = "transformer"
control = "mamba"
task = "needle"
metric = "accuracy"
[[claims]]
text = "DeltaNet finds more than attention"
source = "nobody"
better = "deltanet"
worse = "transformer"
task = "needle"
metric = "accuracy"
"""
CLEAR = {"transformer": 0.2, "mamba": 0.5, "deltanet": 0.9}
NOISE = [0.3, -0.1, 0.25, -0.05, 0.2]  # shows nothing at five seeds, and nothing at fifteen where it swings


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    return plans.load(tmp_path)


def rows_of(cells, retnet):
    """Rows of trainings; `retnet` gives how far it lies above attention at a seed."""
    made = []
    for cell in cells:
        share = (
            CLEAR["transformer"] + retnet(cell.seed)
            if cell.model == "retnet"
            else CLEAR[cell.model] + 0.001 * cell.seed
        )
        made += synthetic.rows_of(cell, [(None, "accuracy", share, 200, {})])
    return made


def measured(plan, retnet, most=99):
    """The further cells that a plan asks for in the end, and the rows; broken off once `most` of them are measured."""
    base = [cell for cell in plans.cells(plan, NAMES) if cell.kind == "training"]
    rows, done = rows_of(base, retnet), []
    while new := [c for c in further_seeds.cells(plan, base, rows, identity.key) if c not in done][: most - len(done)]:
        rows += rows_of(new, retnet)
        done += new
    return base, done, rows


def test_an_open_claim_gets_seeds_for_its_models_and_control_on_its_task_alone(plan):
    base, further, rows = measured(plan, lambda seed: NOISE[seed] if seed < 5 else 0.2 + 0.01 * (seed % 2))
    assert {(c.task, c.model, c.seed) for c in further} == {
        ("needle", model, seed) for model in ("retnet", "transformer", "mamba") for seed in range(5, 10)
    }  # decided at the second look; what DeltaNet adds was decided at the first
    assert len(further) == 15
    assert (
        further_seeds.cells(plan, base, rows, identity.key) == further
    )  # rows of a look change nothing of what asked for it


def test_a_claim_that_stays_open_gets_the_most_seeds_and_no_more(plan):
    _, further, _ = measured(plan, lambda seed: 0.3 * (-1) ** seed)
    assert {cell.seed for cell in further} == set(range(5, 15)) and len(further) == 30


def test_a_run_that_was_broken_off_asks_for_the_rest_of_its_look(plan):
    swing = lambda seed: 0.3 * (-1) ** seed  # noqa: E731
    whole = measured(plan, swing)[1]
    base, some, rows = measured(plan, swing, most=7)
    assert (
        further_seeds.cells(plan, base, rows, identity.key) == whole[:15]
    )  # no third look before the second is complete
    assert some == whole[:7]


def test_nothing_is_asked_before_the_first_look_nor_without_looks(plan):
    base = [cell for cell in plans.cells(plan, NAMES) if cell.kind == "training"]
    early = rows_of([cell for cell in base if cell.seed < 4], lambda seed: 0.3 * (-1) ** seed)
    assert further_seeds.cells(plan, base, early, identity.key) == []
    assert further_seeds.cells(plan, base, [], identity.key) == []
    once, rows = plan.with_overrides(seeds=[0, 1, 2, 3, 4]), rows_of(base, lambda seed: 0.3 * (-1) ** seed)
    assert further_seeds.cells(once, base, rows, identity.key) == []
    assert further_seeds.cells(plan, base, rows, identity.key)
