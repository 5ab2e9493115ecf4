"""One model trained by several processes of one machine, each on its rows of the same batch.

Every process draws the whole batch of a step, which a task gives as a pure function of seed and step, and takes every
n-th row of it. With s_r the sum of the cross entropy over the asked targets of process r's rows and c the number of
asked targets in the whole batch, a step's loss is sum_r s_r / c, as in one process. DDP and FSDP2 average gradients
over the n processes, so process r differentiates n s_r / c.

The process that measures is the first of them (`rank_zero`); it starts the others, which end with it, however it ends.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from schema.terms import PARALLEL
from tasks.harness.loss import Gradients, asked_count, cross_entropy, in_parts, on_device, turns
from tasks.harness.train import Training, train
from tasks.task import Batch, Task

HOST = "127.0.0.1"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
PATIENCE = timedelta(minutes=10)  # that a process waits for the others
DYING_SECONDS = 5.0  # that the others have to end once one of them has failed
TICK = 0.05
# The paths are given after the start: in the environment a file beside a script could stand before Python's own.
BEGIN = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from tasks.harness.data_parallel import work_along; work_along()"
)
READY = "ready/{}"  # what a process says before it joins
FAILED = "failed"  # what the first process that fails writes its reason under


class ProcessGroup(NamedTuple):
    """The processes that train one model together, as one of them sees it."""

    kind: str  # "ddp" | "fsdp2"
    processes: int
    rank: int
    device: str


def check(kind: str, processes: int, device: str) -> None:
    """Raise ValueError, saying what to do, where these processes cannot be had on this machine."""
    if kind not in PARALLEL:
        raise ValueError(f"Data parallelism '{kind}' is unknown; choose one of {', '.join(PARALLEL)}.")
    if processes < 1:
        raise ValueError(f"Data parallelism needs at least one process, not {processes}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "A cell starts its processes itself, on one machine: run bench.py without torchrun, with --parallel and "
            "--processes; several machines share cells, not one cell (--launcher ray)."
        )
    backend = "nccl" if device == "cuda" else "gloo"
    if not dist.is_available() or not dist.is_backend_available(backend):
        raise ValueError(
            f"This torch has no {backend}, which processes on {device} talk through; install one that has."
        )
    if device == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(
            f"{processes} processes need a GPU each and {torch.cuda.device_count()} are here; lower --processes."
        )


def check_rows(task: Task, seed: int, batch_tokens: int, processes: int) -> None:
    """Raise ValueError where the processes cannot share the rows of the first batch evenly.

    Later batches of a task whose texts grow may leave rows over; their shares are uneven and the loss is the same.
    """
    rows = len(task.training(seed, 0, 0.0, batch_tokens).tokens)
    if rows % processes:
        raise ValueError(
            f"A batch of {rows} rows cannot be shared evenly by {processes} processes; change batch_tokens or --processes."
        )


def shared_gradients(group: ProcessGroup, model: nn.Module, micro_batch_tokens: int = 0) -> Gradients:
    """The gradients of `model` under one process's share of each batch; the model's parameters become the group's."""
    total = _AskedLoss(model)
    if group.kind == "ddp":
        # What leaves the wrapped module is the loss alone, so parameters that only a state depends on count as unused.
        total = nn.parallel.DistributedDataParallel(total, find_unused_parameters=True)
    else:
        total = _sharded(group, total)
    return partial(_share, group, total, micro_batch_tokens)


def train_together(group: ProcessGroup, model: nn.Module, task: Task, **run: Any) -> Training:
    """Train `model`, equal in every process, in place; the first process's ends with the whole weights, on the device.

    `run` is what `tasks.harness.train.train` takes. Raises FloatingPointError in every process when the loss is not finite.
    """
    micro = run.get("micro_batch_tokens", 0)
    if group.kind == "ddp":
        found = shared_gradients(group, model.to(group.device), micro)
        return train(model, task, device=group.device, gradients_of=found, **run)
    spread = copy.deepcopy(model)  # sharding changes classes and parameters for good; the model itself stays plain
    with warnings.catch_warnings():
        # It warns of writing in place into what a block returns; the shell adds to a new tensor (models.shell.model.Block).
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        log = train(spread, task, device=group.device, gradients_of=shared_gradients(group, spread, micro), **run)
    weights = _gathered(spread)
    if group.rank == 0:
        model.load_state_dict(weights)
        model.to(group.device)
    return log


class _AskedLoss(nn.Module):
    """The sum of the cross entropy over asked targets, [b, t] of both -> scalar."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self.model, tokens, targets, "sum")


def _share(group: ProcessGroup, total: nn.Module, micro_batch_tokens: int, batch: Batch) -> Tensor:
    rows, asked = len(batch.tokens), asked_count(batch)
    if rows < group.processes:
        raise ValueError(
            f"A batch of {rows} rows gives {group.processes} processes no row each; raise batch_tokens or lower --processes."
        )
    mine = slice(group.rank, None, group.processes)
    own_rows = batch._replace(tokens=batch.tokens[mine], targets=batch.targets[mine])
    parts = in_parts(own_rows, turns(batch, micro_batch_tokens, group.processes))
    mean = torch.zeros((), dtype=torch.double, device=group.device)
    for part in parts:
        with _summed_later(total, later=part is not parts[-1]):
            own = total(*on_device(part, group.device))
            (own * (group.processes / asked)).backward()
        mean += own.detach().double() / asked
    dist.all_reduce(mean)
    return mean


@contextmanager
def _summed_later(total: nn.Module, later: bool) -> Iterator[None]:
    """Inside, gradients stay in each process where there are more to come: they are averaged with the last ones."""
    if isinstance(total, nn.parallel.DistributedDataParallel):
        with total.no_sync() if later else nullcontext():
            yield
        return
    total.set_requires_gradient_sync(not later)
    yield


def _sharded(group: ProcessGroup, total: _AskedLoss) -> nn.Module:
    """The loss with its model's parameters spread over the process group, block by block, then what is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(group.device, (group.processes,))
    for block in getattr(total.model, "blocks", ()):
        fully_shard(block, mesh=mesh)
    return fully_shard(total, mesh=mesh)


def _gathered(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights on the first process's CPU; every process must take part."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


@contextmanager
def rank_zero(
    kind: str, processes: int, device: str, worker_main: Callable[..., Any], arguments: Sequence[Any] = ()
) -> Iterator[ProcessGroup]:
    """Start the other processes, each at `worker_main(group, *arguments)`, and be the first of them inside the block.

    `worker_main` and its arguments are pickled, so the function must be importable. The others must end by themselves when
    the block does; they are killed where it raises. Raises ValueError as `check` does, RuntimeError with the reason of
    another process that failed.
    """
    check(kind, processes, device)
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    others = [
        _start(ProcessGroup(kind, processes, rank, device), store.port, worker_main, arguments)
        for rank in range(1, processes)
    ]
    try:
        _wait_until_ready(store, others)
        with _joined(group := ProcessGroup(kind, processes, 0, device), store):
            try:
                yield group
            except RuntimeError as error:
                if reason := _failure(store, others):
                    raise RuntimeError(reason) from error
                raise
        for other in others:
            other.wait(PATIENCE.total_seconds())
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
        with _joined(group, store):
            worker_main(group, *arguments)
    except Exception as error:
        with suppress(RuntimeError):  # rank 0, and the store with it, may be gone
            reason = f"process {group.rank} of {group.processes}: {type(error).__name__}: {error}"
            store.compare_set(FAILED, "", reason)
        os._exit(1)


def _end_with_rank_zero() -> None:
    os.read(
        sys.stdin.fileno(), 1
    )  # nothing more is sent; unbuffered, as a lock that is held would break the normal end
    os._exit(1)


@contextmanager
def _joined(group: ProcessGroup, store: dist.Store) -> Iterator[None]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    if group.device == "cuda":
        torch.cuda.set_device(group.rank)
    backend = "nccl" if group.device == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=group.rank, world_size=group.processes, timeout=PATIENCE, device_id=_device_id(group)
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _device_id(group: ProcessGroup) -> torch.device | None:
    return torch.device("cuda", group.rank) if group.device == "cuda" else None


def _wait_until_ready(store: dist.TCPStore, others: Sequence[subprocess.Popen]) -> None:
    """Return when all others are about to join; joining would wait long for one that died before."""
    for rank, other in enumerate(others, 1):
        while not store.check([READY.format(rank)]):
            if other.poll() is not None:
                raise RuntimeError(_ended(rank, len(others) + 1, other.returncode))
            time.sleep(TICK)


def _failure(store: dist.TCPStore, others: Sequence[subprocess.Popen]) -> str:
    """Why another process failed before this one did; "" if none did."""
    if store.check([FAILED]):
        return store.get(FAILED).decode()
    for rank, other in enumerate(others, 1):
        with suppress(subprocess.TimeoutExpired):
            code = other.wait(DYING_SECONDS / len(others))
            if store.check([FAILED]):
                return store.get(FAILED).decode()
            if code:
                return _ended(rank, len(others) + 1, code)
    return ""


def _ended(rank: int, processes: int, code: int) -> str:
    return f"process {rank} of {processes} died ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
