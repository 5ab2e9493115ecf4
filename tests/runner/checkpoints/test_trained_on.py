"""Cells that ask a task after language modelling: one training serves every one of them."""

from __future__ import annotations

import json

import pytest

import tasks
from results.cell import Cell
from results.plans import reader
from runner import costs
from runner.cell_key import as_trained, identify, training_key
from runner.preflight.refusals import check_cells
from tasks.outline import outline

PLAN = """
title = "t"
question = "q"
models = ["transformer"]
seeds = [0]
learning_rate = 1e-3
size = { width = 32, depth = 1, heads = 2 }
budget = { steps = 1, batch_tokens = 64 }

[[tasks]]
name = "needle"
length = 64
test_lengths = [64]
train_on = { name = "language-modelling", length = 32 }

[[tasks]]
name = "babilong"
questions = ["qa1"]
test_lengths = [1024]
samples = 1
train_on = { name = "language-modelling", length = 32 }

[[tasks]]
name = "zero-shot-needle"
length = 64
template = "compact"

[[tasks]]
name = "language-modelling"
length = 32

[[tasks]]
name = "needle"
length = 64
test_lengths = [64]
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> list[Cell]:
    """The training cells of the plan."""
    folder = tmp_path_factory.mktemp("plan") / "mine"
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    found = reader.cells(reader.load(folder), ["transformer"])
    check_cells(found)
    return [cell for cell in found if cell.kind == "training"]


def test_one_training_serves_all_that_are_asked_after_it(cells):
    needle, babilong, alias, text, own = cells
    keys = [training_key(cell, tasks.create(cell.task, **cell.task_settings)) for cell in cells]
    assert keys[0] == keys[1] == keys[3] and len(set(keys)) == 3  # the alias has windows of 64
    assert as_trained(needle).task_settings == {"length": 32} and as_trained(own) == own
    assert as_trained(alias).task == as_trained(needle).task == "language-modelling"


def test_a_row_tells_what_was_asked_and_what_was_trained(cells):
    needle, *_, own = cells
    assert len({identify(cell).key for cell in cells}) == 5
    assert identify(needle).code_hash != identify(own).code_hash  # of language modelling too
    assert needle.task == own.task and json.loads(json.dumps(needle.task_settings))["train_on"]["length"] == 32


def test_a_forecast_counts_the_text_that_is_trained(cells):
    needle, *_, own = cells
    assert (outline(needle.task, needle.task_settings).length, outline(own.task, own.task_settings).length) == (32, 64)
    assert costs.of_cell(needle, None).operations != costs.of_cell(own, None).operations
