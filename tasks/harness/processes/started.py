"""The other processes of a cell, which its first one starts on its own machine; they end with it, however it ends."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

from tasks.harness.processes.group import FAILED, PATIENCE, READY, ProcessGroup, joined, tell_failure

HOST = "127.0.0.1"
DYING_SECONDS = 5.0  # that the others have to end once one of them has failed
TICK = 0.05
# The paths are given after the start: in the environment a file beside a script could stand before Python's own.
BEGIN = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from tasks.harness.processes.started import work_along; work_along()"
)


class Started:
    """The processes that this one started and the store through which they met; what `rank_zero` asks of the others."""

    def __init__(self, store: dist.TCPStore, others: Sequence[subprocess.Popen]) -> None:
        self.store, self.others = store, others

    def wait_until_ready(self) -> None:
        """Return when all are about to join; joining would wait long for one that died before."""
        for rank, other in enumerate(self.others, 1):
            while not self.store.check([READY.format(rank)]):
                if other.poll() is not None:
                    raise RuntimeError(self._ended(rank, other.returncode))
                time.sleep(TICK)

    def failure(self) -> str:
        """Why another process failed before this one did; "" if none did."""
        if self.store.check([FAILED]):
            return self.store.get(FAILED).decode()
        for rank, other in enumerate(self.others, 1):
            with suppress(subprocess.TimeoutExpired):
                code = other.wait(DYING_SECONDS / len(self.others))
                if self.store.check([FAILED]):
                    return self.store.get(FAILED).decode()
                if code:
                    return self._ended(rank, code)
        return ""

    def wait_until_done(self) -> None:
        """Return when all have ended by themselves."""
        for other in self.others:
            other.wait(PATIENCE.total_seconds())

    def _ended(self, rank: int, code: int) -> str:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"process {rank} of {len(self.others) + 1} died ({how})"


@contextmanager
def started(group: ProcessGroup, worker_main: Callable[..., Any], arguments: Sequence[Any]) -> Iterator[Started]:
    """Start the others of `group`, each at `worker_main(group, *arguments)`; none of them is left after the block."""
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    others = [
        _start(group._replace(rank=rank), store.port, worker_main, arguments) for rank in range(1, group.processes)
    ]
    try:
        yield Started(store, others)
    finally:
        for other in others:
            other.kill()
            other.wait()
            with suppress(OSError):
                other.stdin.close()


def _start(
    group: ProcessGroup, port: int, worker_main: Callable[..., Any], arguments: Sequence[Any]
) -> subprocess.Popen:
    """Another process; its standard input stays open as long as this process lives, and it ends when that closes."""
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ}  # the first process's warnings are enough
    process = subprocess.Popen([sys.executable, "-P", "-c", BEGIN], stdin=subprocess.PIPE, env=environment)
    pickle.dump([path or os.getcwd() for path in sys.path], process.stdin)
    pickle.dump((group, port, worker_main, tuple(arguments)), process.stdin)
    process.stdin.flush()
    return process


def work_along() -> None:
    """What a started process does: read its orders, join the group, work; exit 1 where that fails, the reason told."""
    group, port, worker_main, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_rank_zero, daemon=True).start()
    store = dist.TCPStore(HOST, port, is_master=False, timeout=PATIENCE)
    try:
        store.set(READY.format(group.rank), "")
        with joined(group, store):
            worker_main(group, *arguments)
    except Exception as error:
        tell_failure(group, store, error)
        os._exit(1)


def _end_with_rank_zero() -> None:
    # nothing more is sent; unbuffered, as a lock that is held would break the normal end
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)
