"""Every registered model goes through the plan `generations` from the forecast to the rows, by what its own file says alone."""

from __future__ import annotations

import math

import pytest

from models import registry
from results.plans import reader as plans
from results.rows import store
from runner.cell_key import identify
from runner.measure import measure
from schema.places import ROOT
from tests.support.models import CORE

PLAN = ROOT / "results" / "comparisons" / "own" / "generations"
LITTLE = {  # of every part of the plan, in place of its own
    "language-modelling": {"length": 64, "test_bytes": 256},
    "mqar": {"pairs": [2], "test_pairs": [2], "length": 24, "test_lengths": [24], "samples": 2},
    "state-tracking": {"length": 8, "samples": 2},
    "throughput": {"lengths": [48], "batch_tokens": 48, "repeats": 1, "decode": 2},
}


def one_of_each_family() -> set[str]:
    """Of every family its first model that is of the core, or its first where none is."""
    core_last = sorted(reversed(registry.names()), key=lambda name: name in CORE)
    return set({registry.entry(name).family: name for name in core_last}.values())


QUICK = one_of_each_family()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache of prepared text for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITANOMACHY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows_of(cell):
    """What a cell leaves: its numbers, or why it is left out (a store of training texts that are drawn at random)."""
    found = measure(cell, lambda progress: None)
    return found if isinstance(found, list) else store.rows(cell, identify(cell), found)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in registry.names()]
)
def test_a_model_goes_through_the_plan(name, cache):
    plan = plans.load(PLAN).with_overrides(
        models=[name],
        seeds=[0],
        steps=2,
        settings=LITTLE,
        size={"width": 32, "heads": 2},
        budget={"steps": 2, "batch_tokens": 64},
    )
    cells = [cell for cell in plans.cells(plan, registry.names()) if cell.model == name]
    assert len(cells) == len(plan.tasks) + len(plan.timings)
    rows = [row for cell in cells for row in rows_of(cell)]
    assert {row["task"] for row in rows} == set(LITTLE)
    assert all(math.isfinite(row["value"]) for row in rows if isinstance(row.get("value"), float))
    assert {row["family"] for row in rows} == {registry.entry(name).family}
