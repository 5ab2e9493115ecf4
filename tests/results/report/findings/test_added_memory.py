"""The table of what a memory added after training is worth: its loss with and without, and what it costs."""

from __future__ import annotations

from results.report.evaluations import grouped
from results.report.findings import added_memory
from tests.support import synthetic

TRIED = {"weight": 0.25, "tried": "weight 0.1: 1.9000; weight 0.25: 1.7500"}


def rows(with_memory: bool):
    found = []
    for seed, (without, loss) in enumerate([(2.0, 1.7), (2.2, 1.8)]):
        measured = [(None, "bits_per_byte", 3.0, 1000, {"length": 512})]
        if with_memory:
            measured += [
                (None, "validation_loss", without, 1000, {"memory": "off"}),
                (None, "memory_validation_loss", loss, 1000, TRIED),
                (None, "memory_bytes", 2048.0, 1, {"stored": 2048, "of a state": 0}),
                (None, "memory_build_seconds", 3.0, 1, {}),
                (None, "reading_milliseconds_per_token", 0.05, 1000, {}),
                (None, "memory_reading_milliseconds_per_token", 0.5, 1000, {}),
            ]
        found += synthetic.rows_of(synthetic.cell("retnet", "language-modelling", seed=seed), measured)
    return found


def test_a_memory_has_a_line_with_its_gain_and_its_cost():
    (section,) = added_memory.sections(grouped(rows(with_memory=True)))
    line = next(line for line in section.text.splitlines() if line.startswith("| retnet"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["retnet", "2.100", "1.750", "-0.350", "weight 0.25", "2.0 KiB", "3.0 s", "0.050", "0.500"]


def test_without_a_memory_nothing_is_said():
    assert added_memory.sections(grouped(rows(with_memory=False))) == []
