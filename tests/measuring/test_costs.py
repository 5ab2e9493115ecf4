"""What a dry run says that a cell will cost, held to the model that is built."""

from __future__ import annotations

import dataclasses

import pytest

from measuring import costs
from measuring.building import build
from measuring.learning import Keeping, learn
from models import accounting
from models.language_model import Size
from results.cell import Cell
from results.forecast import Cost

CELL = Cell(
    comparison="tiny", kind="training", model="gated-deltanet", settings={}, task="mqar", task_settings={"samples": 2},
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 2, "batch_tokens": 128}, seed=0, lr=1e-3,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip


def test_operations_and_memory_are_those_of_the_model():
    found = costs.of_cell(CELL, None)
    model = build(CELL, 128)
    per_token = accounting.training_flops_per_token("gated-deltanet", Size(128, **CELL.size), 64)
    assert found.operations == pytest.approx(per_token * 2 * 128)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert found.memory == 16 * numbers + 8 * 128 * 128 and not found.is_trained


def test_a_kept_model_is_known(tmp_path):
    import tasks

    keeping = Keeping(tmp_path)
    learn(CELL, tasks.create(CELL.task, **CELL.task_settings), keeping, lambda news: None)
    assert costs.of_cell(CELL, keeping).is_trained
    assert costs.of_cell(dataclasses.replace(CELL, task_settings={"samples": 9}), keeping).is_trained
    assert not costs.of_cell(dataclasses.replace(CELL, seed=1), keeping).is_trained


@pytest.mark.parametrize("kind", ["floors", "timing", "contest"])
def test_what_does_not_train_has_no_cost_of_training(kind):
    assert costs.of_cell(dataclasses.replace(CELL, kind=kind), None) == Cost()
