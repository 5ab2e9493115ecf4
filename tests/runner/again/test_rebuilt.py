"""What rows say beside their numbers is held against the model as it is built again."""

from __future__ import annotations

import pytest

from models import registry
from results.plans import reader as plans
from results.rows import predictions, store, verification
from runner import cell_key
from runner.again.rebuilt import rebuild
from runner.again.rederived import rederive
from runner.cell_key import identify
from runner.measure import measure
from tasks.needle.task import Needle
from tests.support.tiny_plan import tiny_plan


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with predictions, and the rows of tiny trainings and trivial baselines."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    folder.mkdir()
    (folder / "plan.toml").write_text(tiny_plan(budget="steps = 1, batch_tokens = 256", seeds=(0,)))
    rows = []
    for cell in plans.cells(plans.load(folder), registry.names()):
        who, found = identify(cell), measure(cell, lambda progress: None)
        rows += store.rows(cell, who, found)
        predictions.write(folder / "predictions", who.key, found.predictions)
    return rows, folder / "predictions"


def verdict(rows, folder):
    return verification.verify(rows, folder, rederive, rebuild, "tiny")


def test_true_rows_differ_in_nothing(measured):
    found = verdict(*measured)
    assert found.differences == [] and found.notes == {} and found.earlier == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"parameters": 123}, "parameters is 123 in the rows"), ({"state_bytes": 7}, "state_bytes is 7 in the rows"),
        ({"provider": "fla"}, "provider is 'fla' in the rows"), ({"family": "titans"}, "family is 'titans' in the rows"),
        ({"family_order": 0}, "family_order is 0 in the rows"), ({"provider": "chunked+magic"}, "'chunked+magic'"),
        ({"device": "tpu"}, "no device is called 'tpu'"), ({"device": "cuda"}, "was measured on a cpu, not on cuda"),
        ({"protocol": "zero-shot"}, "protocol is 'zero-shot' in the rows, built again it is trained"),
        ({"threads": 64}, "threads is 64 in the rows, built again it is 1"),
        ({"comparison": "other"}, "it is a row of the comparison 'other', not of 'tiny'"),
    ],
)  # fmt: skip
def test_what_is_forged_in_all_rows_of_a_model_is_a_difference(measured, change, says):
    rows, folder = measured
    forged = [{**row, **change} if row["model"] == "deltanet" else row for row in rows]
    assert any(says in one for one in verdict(forged, folder).differences)


def test_a_forged_protocol_of_floors_is_a_difference(measured):
    rows, folder = measured
    forged = [{**row, "protocol": "few-shot"} if row["family"] == "floor" else row for row in rows]
    assert any("floors" in one and "protocol is 'few-shot'" in one for one in verdict(forged, folder).differences)


def test_rows_of_an_earlier_exam_neither_hold_nor_differ(measured, monkeypatch):
    rows, folder = measured
    monkeypatch.setattr(Needle, "exam_version", 2)
    monkeypatch.setattr(cell_key, "_task_facts", cell_key._task_facts.__wrapped__)
    found = verdict(rows, folder)
    assert found.differences == [] and found.held == 0
    assert {asked: len(those) for asked, those in found.earlier.items()} == {
        "needle: exam 1, today's is 2": sum(row["status"] == "ok" for row in rows)
    }


def test_further_floors_of_changed_code_are_no_difference(measured, monkeypatch):
    rows, folder = measured
    floors = [row for row in rows if row["family"] == "floor"]
    fewer = [row for row in floors if row["model"] != floors[-1]["model"]]
    assert fewer and any("that no row has" in one for one in verdict(fewer, folder).differences)
    monkeypatch.setattr(cell_key, "_code_hash", lambda *_: "changed")
    found = verdict(fewer, folder)
    assert found.differences == [] and any("further floors" in one for one in found.notes)
