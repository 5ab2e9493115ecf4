"""Figures drawn by several processes at a time, where there are many and the machine has processors for them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

FEWEST = 4  # figures for each process: fewer are drawn before another has started

Made = TypeVar("Made")
_jobs: Sequence[Callable[[], object]] = ()  # that a process just made finds here: what draws a figure cannot be sent


def results(jobs: Sequence[Callable[[], Made]]) -> list[Made]:
    """What each job returns, in their order. Only Linux copies a process as it stands; elsewhere this process does all."""
    global _jobs
    processes = min(_processors(), len(jobs) // FEWEST)
    if processes < 2 or sys.platform != "linux" or multiprocessing.current_process().daemon:
        return [job() for job in jobs]
    _jobs = jobs
    try:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            return pool.map(_result, range(len(jobs)), chunksize=1)
    finally:
        _jobs = ()


def _result(number: int) -> object:
    return _jobs[number]()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
