"""Figures drawn by several processes at a time, where there are many and the machine has processors for them."""

from __future__ import annotations

import gc
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
        return [_made(job) for job in jobs]
    _jobs = jobs
    try:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            return pool.map(_result, range(len(jobs)), chunksize=1)
    finally:
        _jobs = ()


def _result(number: int) -> object:
    return _made(_jobs[number])


def _made(job: Callable[[], Made]) -> Made:
    """What a job returns, without a search for garbage in between, which takes a tenth of a figure's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return job()
    finally:
        if was_enabled:
            gc.enable()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
