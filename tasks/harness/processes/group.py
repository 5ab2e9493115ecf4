"""The group of processes that train one model: who is in it, whether it can be had here, how one joins and fails in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from schema.terms import PARALLEL
from tasks.harness.processes import torchrun_says

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
PATIENCE = timedelta(minutes=10)  # that a process waits for the others
READY = "ready/{}"  # what a process says before it joins
FAILED = "failed"  # what the first process that fails writes its reason under


class ProcessGroup(NamedTuple):
    """The processes that train one model together, as one of them sees it."""

    kind: str  # "ddp" | "fsdp2"
    processes: int
    rank: int
    device: str


def check(kind: str, processes: int, device: str) -> None:
    """Raise ValueError, saying what to do, where these processes cannot be had here."""
    if kind not in PARALLEL:
        raise ValueError(f"Data parallelism '{kind}' is unknown; choose one of {', '.join(PARALLEL)}.")
    if processes < 1:
        raise ValueError(f"Data parallelism needs at least one process, not {processes}.")
    if torchrun_says.started() and processes != torchrun_says.processes():
        raise ValueError(
            f"torchrun started {torchrun_says.processes()} processes and {processes} were asked for; leave --processes out."
        )
    backend = _backend(device)
    if not dist.is_available() or not dist.is_backend_available(backend):
        raise ValueError(
            f"This torch has no {backend}, which processes on {device} talk through; install one that has."
        )
    here = torchrun_says.processes_here() if torchrun_says.started() else processes
    if device == "cuda" and here > torch.cuda.device_count():
        fewer = "--nproc-per-node" if torchrun_says.started() else "--processes"
        raise ValueError(f"{here} processes need a GPU each and {torch.cuda.device_count()} are here; lower {fewer}.")


@contextmanager
def joined(group: ProcessGroup, store: dist.Store) -> Iterator[None]:
    """Be a member of the group inside the block; those of one machine talk through its loopback, unless told otherwise."""
    if not torchrun_says.started() or torchrun_says.processes_here() == group.processes:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    device = None
    if group.device == "cuda":
        device = torch.device("cuda", torchrun_says.rank_here() if torchrun_says.started() else group.rank)
        torch.cuda.set_device(device)
    dist.init_process_group(
        _backend(group.device),
        store=store,
        rank=group.rank,
        world_size=group.processes,
        timeout=PATIENCE,
        device_id=device,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


def tell_failure(group: ProcessGroup, store: dist.Store, error: Exception) -> None:
    """Leave the reason for the first process, unless another one failed before; it may be gone, and the store with it."""
    with suppress(RuntimeError):
        store.compare_set(FAILED, "", f"process {group.rank} of {group.processes}: {type(error).__name__}: {error}")
