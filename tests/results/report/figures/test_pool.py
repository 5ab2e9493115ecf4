"""Jobs drawn by several processes come back in their order, and where there is one processor none is started."""

from __future__ import annotations

import os
from functools import partial

import pytest

from results.report.figures import pool


def _number_and_process(number: int) -> tuple[int, int]:
    return number, os.getpid()


@pytest.mark.parametrize("processors", [1, 2])
def test_results_stand_in_the_order_of_their_jobs(processors, monkeypatch):
    monkeypatch.setattr(pool, "_processors", lambda: processors)
    jobs = [partial(_number_and_process, number) for number in range(2 * pool.FEWEST)]
    found = pool.results(jobs)
    assert [number for number, _ in found] == list(range(len(jobs)))
    assert ({process for _, process in found} == {os.getpid()}) == (processors == 1)
    assert pool.results([]) == []
