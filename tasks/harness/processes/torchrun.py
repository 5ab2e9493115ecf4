"""Processes that torchrun started, on one machine or several: the first measures, the others train along where they are called.

The first process runs the comparison as it does alone; each cell that trains is a process of its own on the first machine
(`runner/schedule`), and takes the first place in the group. The others wait for orders: the n-th order in the store that
all share is the n-th training, with the function to call and its arguments, and ends the wait where it is empty.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch.distributed as dist

from tasks.harness.processes import torchrun_says
from tasks.harness.processes.group import FAILED, PATIENCE, READY, ProcessGroup, joined, tell_failure

ORDERS = "orders"  # how many there were
ORDER = "order/{}"
END = b"end"
LEFT = "left"  # how many have read the end
TICK = 0.1
DYING_SECONDS = 5.0  # that another process has to tell why it failed, or that it has heard of the end


class Called:
    """The processes that were called to one training and the store of that training; what `rank_zero` asks of the others."""

    def __init__(self, store: dist.Store, processes: int) -> None:
        self.store, self.processes = store, processes

    def wait_until_ready(self) -> None:
        """Return when all are about to join. Raises RuntimeError naming the first that does not come."""
        for rank in range(1, self.processes):
            try:
                self.store.wait([READY.format(rank)], PATIENCE)
            except RuntimeError as error:
                raise RuntimeError(
                    f"process {rank} of {self.processes} did not come within {PATIENCE.total_seconds() / 60:.0f} minutes; "
                    "it may still be in the training before"
                ) from error

    def failure(self) -> str:
        """Why another process failed before this one did; "" if none says so."""
        return self.store.get(FAILED).decode() if _wait(lambda: self.store.check([FAILED])) else ""

    def wait_until_done(self) -> None:
        """Nothing: the others go back to waiting for orders."""


@contextmanager
def called(group: ProcessGroup, worker_main: Callable[..., Any], arguments: Sequence[Any]) -> Iterator[Called]:
    """Call the others of `group` to `worker_main(group, *arguments)`, each with its own rank."""
    store = shared_store()
    number = store.add(ORDERS, 1)
    store.set(ORDER.format(number), pickle.dumps((group, worker_main, tuple(arguments))))
    yield Called(dist.PrefixStore(str(number), store), group.processes)


def follow() -> None:
    """What every process but the first does: train along, order by order, until the end. One that fails waits for the next."""
    store = shared_store()
    for number in count(1):
        while not store.check([ORDER.format(number)]):
            time.sleep(TICK)
        order = store.get(ORDER.format(number))
        if order == END:
            store.add(LEFT, 1)
            return
        group, worker_main, arguments = pickle.loads(order)
        group, own = group._replace(rank=torchrun_says.rank()), dist.PrefixStore(str(number), store)
        try:
            own.set(READY.format(group.rank), "")
            with joined(group, own):
                worker_main(group, *arguments)
        except Exception as error:  # the first process makes a failed row of it, and may go on to the next cell
            tell_failure(group, own, error)


@contextmanager
def leading() -> Iterator[None]:
    """Inside, cells may call the other processes; after the block these end. Nothing without torchrun."""
    if not torchrun_says.started():
        yield
        return
    store = shared_store(hosts=True)
    try:
        yield
    finally:
        store.set(ORDER.format(store.add(ORDERS, 1)), END)
        _wait(lambda: store.add(LEFT, 0) == torchrun_says.processes() - 1)  # the store may end with this process


def _wait(is_there: Callable[[], bool]) -> bool:
    """Whether it came to be within the seconds that another process has."""
    end = time.monotonic() + DYING_SECONDS
    while not (found := is_there()) and time.monotonic() < end:
        time.sleep(TICK)
    return found


def shared_store(hosts: bool = False) -> dist.Store:
    """The store at MASTER_ADDR and MASTER_PORT that all processes share. torchrun holds it; where another launcher set the
    variables alone, the first process does, which says `hosts`.
    """
    is_held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(
        *torchrun_says.store(), is_master=hosts and not is_held, wait_for_workers=False, timeout=PATIENCE
    )
    return dist.PrefixStore(f"cells/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
