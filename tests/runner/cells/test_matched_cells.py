"""Cells whose state or training FLOPs are matched: what their rows, their dry run and their checkpoints hold."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from models.conformance import costs as accounting
from models.language_model import Size, parameter_count
from results.cell import Cell
from runner import costs
from runner.build import build
from runner.cell_key import identify, training_key
from runner.checkpoints import store
from runner.checkpoints.trained_model import CheckpointSettings
from runner.measure import measure
from runner.preflight.refusals import check_cells

NANO = {"width": 32, "depth": 1, "heads": 2}
PLAIN = Cell(
    comparison="matched", kind="training", model="mamba2", settings={}, task="mqar",
    task_settings={"samples": 2}, size=NANO, budget={"steps": 2, "batch_tokens": 128}, seed=0, lr=1e-3,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip
STATE = dataclasses.replace(PLAIN, size=NANO | {"match": "state", "state_bytes": 8192})
FLOPS = dataclasses.replace(PLAIN, model="gated-deltanet", size=NANO | {"match": "flops", "flops_length": 64})


def test_rows_of_a_state_match_have_its_bytes_and_its_model_is_kept(tmp_path):
    measured = measure(STATE, lambda news: None, CheckpointSettings(tmp_path))
    assert measured.state_bytes == pytest.approx(8192, rel=0.1)
    assert measured.provider in ("chunked", "native")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    kept = store.load(folder).model
    assert parameter_count(kept) == measured.parameters
    assert kept.state_dict().keys() == build(STATE, 128).state_dict().keys()


def test_rows_of_a_flops_match_have_the_figure_and_the_one_aimed_at():
    measured = measure(FLOPS, lambda news: None)
    ((value, where),) = ((m[2], m[4]) for m in measured.measurements if m[1] == "matched_flops_per_token")
    aim = accounting.training_flops_per_token("transformer", Size(128, **NANO), 64)
    assert where == {"length": 64, "aim": aim} and value == pytest.approx(aim, rel=0.05)
    plain = measure(PLAIN, lambda news: None)
    assert not any(m[1] == "matched_flops_per_token" for m in plain.measurements)


def test_each_match_is_another_model_with_keys_of_its_own():
    import tasks

    task = tasks.create(PLAIN.task, **PLAIN.task_settings)
    cells = [dataclasses.replace(PLAIN, model=FLOPS.model, size=cell.size) for cell in (PLAIN, STATE, FLOPS)]
    assert len({identify(cell).key for cell in cells}) == len({training_key(cell, task) for cell in cells}) == 3
    assert len({parameter_count(build(cell, 128)) for cell in cells}) == 3


def test_dry_run_says_how_near_a_cell_comes():
    assert costs.of_cell(PLAIN, None).match_report is None
    found = costs.of_cell(STATE, None).match_report
    assert found.aim == 8192 and found.figure == pytest.approx(8192, rel=0.1)
    timing = dataclasses.replace(STATE, kind="timing", task="throughput", task_settings={}, budget={}, lr=0.0)
    assert costs.of_cell(timing, None).match_report.figure == found.figure
    growing = dataclasses.replace(STATE, model="transformer")
    assert costs.of_cell(growing, None).match_report.figure is None


def test_matched_cells_pass_the_check_before_a_run():
    check_cells([STATE, FLOPS, dataclasses.replace(STATE, model="transformer")])
    with pytest.raises(ValueError, match="match is one of parameters, state, flops"), torch.device("meta"):
        check_cells([dataclasses.replace(PLAIN, size=NANO | {"match": "weights"})])
