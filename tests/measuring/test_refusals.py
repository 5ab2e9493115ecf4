"""What a run is told before anything is measured."""

from __future__ import annotations

import warnings

import pytest

from measuring.refusals import check_cells
from results.cell import Cell


def floors(**settings) -> Cell:
    return Cell(
        comparison="told", kind="floors", model="", settings={}, task="babilong", task_settings=settings, size={},
        budget={}, seed=0, lr=0.0, dtype="", provider="", device="cpu", threads=1,
    )  # fmt: skip


def test_questions_that_fit_no_length_are_told_once():
    with pytest.warns(UserWarning, match="babilong leaves out .*: qa3 needs a training length of at least 201") as told:
        check_cells([floors(questions=["qa1", "qa3"], length=128, test_lengths=[0, 128, 256])])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_cells([floors(questions=["qa1", "qa3"], length=256, test_lengths=[0, 256])])
