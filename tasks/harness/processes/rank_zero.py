"""The first process of a group: it calls or starts the others, and tells what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tasks.harness.processes import torchrun_says
from tasks.harness.processes.group import ProcessGroup, check, joined
from tasks.harness.processes.started import started
from tasks.harness.processes.torchrun import called


@contextmanager
def rank_zero(
    kind: str, processes: int, device: str, worker_main: Callable[..., Any], arguments: Sequence[Any] = ()
) -> Iterator[ProcessGroup]:
    """Have the other processes at `worker_main(group, *arguments)`, and be the first of them inside the block.

    `worker_main` and its arguments are pickled, so the function must be importable. The others must end their work by
    themselves when the block does. Those that this process starts are killed where it raises; those of torchrun then fail
    in what they wait for, and wait for the next call. Raises ValueError as `check` does, RuntimeError with the reason of
    another process that failed.
    """
    check(kind, processes, device)
    group = ProcessGroup(kind, processes, 0, device)
    summon = called if torchrun_says.started() else started
    with summon(group, worker_main, arguments) as others:
        others.wait_until_ready()
        with joined(group, others.store):
            try:
                yield group
            except RuntimeError as error:
                if reason := others.failure():
                    raise RuntimeError(reason) from error
                raise
        others.wait_until_done()
