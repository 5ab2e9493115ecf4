"""What a run is told before anything is measured."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from results.cell import Cell
from runner.preflight.refusals import check_cells


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


def test_two_names_for_one_model_are_told():
    size = {"width": 64, "depth": 2, "heads": 2}
    asked = {"kind": "timing", "task": "throughput", "task_settings": {}}
    timed = dataclasses.replace(floors(), **asked, size=size, dtype="float32", provider="auto")
    plain = dataclasses.replace(timed, model="retnet")
    wide = dataclasses.replace(plain, variant="wide", settings={"inner": 64})
    near = dataclasses.replace(plain, model="transformer-window", variant="near", settings={"window": 16})
    far = dataclasses.replace(near, variant="far", settings={"window": 32})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_cells([plain, wide, near, far, dataclasses.replace(plain, seed=1)])
    # the layer's own default: twice the model's width
    again = dataclasses.replace(plain, variant="again", settings={"inner": 128})
    with pytest.warns(UserWarning, match="retnet and again are built alike"):
        check_cells([plain, wide, again])


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        ("mamba2", {"kernel": 0}, "ZeroDivisionError"),
        ("gla", {"inner": -8}, "negative dimension"),
        ("mamba2", {"states": 0}, "states is 0, which leaves it nothing to hold"),
    ],
)
def test_settings_that_leave_nothing_to_compute_are_refused_by_name(model, settings, why):
    size = {"width": 32, "depth": 1, "heads": 2}
    asked = {"kind": "timing", "task": "throughput", "task_settings": {}, "dtype": "float32", "provider": "auto"}
    cell = dataclasses.replace(floors(), **asked, size=size, model=model, settings=settings)
    with pytest.raises(ValueError, match=f"{model} cannot be built with .*{why}.*; choose other values"):
        check_cells([cell])
