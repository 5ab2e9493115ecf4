"""Sizes by name and budgets in tokens."""

from __future__ import annotations

import pytest

from results.plans import sizes
from results.plans.entries import in_steps
from results.plans.toml_reader import PlanError
from runner.commands.shared import arguments


def test_the_camera_readys_sizes_come_from_its_table():
    assert sizes.printed() == {
        "170m": {"width": 768, "depth": 12, "heads": 16},
        "340m": {"width": 1024, "depth": 24, "heads": 16},
        "760m": {"width": 1536, "depth": 24, "heads": 16},
        "1.3b": {"width": 2048, "depth": 18, "heads": 8},
    }


def test_names_work_on_the_command_line_in_any_case():
    assert arguments.size_in("nano") == sizes.OWN["nano"]
    assert arguments.size_in("1.3B") == sizes.printed()["1.3b"]
    assert arguments.size_in("width=32") == {"width": 32}
    with pytest.raises(PlanError, match="--size: there is no size 'giant'; known: nano, micro"):
        arguments.size_in("giant")


def test_every_named_size_can_be_built():
    for size in (sizes.OWN | sizes.printed()).values():
        assert tuple(size) == sizes.SIZE and size["width"] % size["heads"] == 0


def test_tokens_become_the_fewest_steps_that_reach_them():
    assert in_steps({"tokens": 1000, "batch_tokens": 256}, {}) == {"steps": 4, "batch_tokens": 256}
    assert in_steps({"steps": 3, "batch_tokens": 256}, {}) == {"steps": 3, "batch_tokens": 256}
    # an entry's larger batch takes fewer steps for the plan's tokens; its own steps or tokens replace the plan's
    assert in_steps({"tokens": 1000, "batch_tokens": 256}, {"batch_tokens": 500})["steps"] == 2
    assert in_steps({"tokens": 1000, "batch_tokens": 256}, {"steps": 9})["steps"] == 9
    assert in_steps({"steps": 5, "batch_tokens": 256}, {"tokens": 512})["steps"] == 2
