"""The most bytes that torch's CPU tensors hold at once while something runs, from torch's own account of its allocations."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_of_tensors(run: Callable[[], Any]) -> int:
    """Bytes beyond those that were held before, where they are most; the same each time, unlike a process's memory."""
    gc.collect()  # what is freed later than here would count as held before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
