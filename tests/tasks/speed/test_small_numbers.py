"""Subnormal numbers count as zero while a cell is measured, on all threads, and as before afterwards."""

from __future__ import annotations

import subprocess
import sys

from results.plans import reader
from runner import measure
from tasks.speed import small_numbers
from tests.support.tiny_plan import tiny_plan

THREADS = """
import torch
from tasks.speed import small_numbers
torch.set_num_threads(2)
with small_numbers.as_zero():
    half = torch.full((1 << 20,), torch.finfo(torch.float32).tiny) / 2  # large enough for both threads
    print(int((half == 0).sum()))
"""


def test_they_are_zero_inside_and_as_before_outside():
    before = small_numbers.are_zero()
    with small_numbers.as_zero():
        assert small_numbers.are_zero()
        with small_numbers.as_zero():
            pass
        assert small_numbers.are_zero(), "an inner block ends, the outer goes on"
    assert small_numbers.are_zero() == before


def test_the_threads_that_a_worker_starts_take_them_for_zero_too():
    told = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert int(told.stdout) == 1 << 20


def test_a_cell_is_measured_so(results, monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "_measured", lambda *_: seen.append(small_numbers.are_zero()))
    (results / "tiny" / "plan.toml").write_text(tiny_plan())
    measure.measure(reader.cells(reader.load(results / "tiny"), ["transformer", "deltanet"])[0], lambda news: None)
    assert seen == [True]
