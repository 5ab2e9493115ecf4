"""One model trained by several processes, each on its rows of the same batch.

Every process draws the whole batch of a step, which a task gives as a pure function of seed and step, and takes every
n-th row of it. With s_r the sum of the cross entropy over the asked targets of process r's rows and c the number of
asked targets in the whole batch, a step's loss is sum_r s_r / c, as in one process. DDP and FSDP2 average gradients
over the n processes, so process r differentiates n s_r / c.

The process that measures is the first of them (`rank_zero`); the others it starts itself, or torchrun has started them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tasks.harness.loss import Gradients, asked_count, cross_entropy, in_parts, on_device, turns
from tasks.harness.processes.group import ProcessGroup, check
from tasks.harness.processes.rank_zero import rank_zero
from tasks.harness.processes.units import outside_forward, units
from tasks.harness.train import Training, train
from tasks.task import Batch, Task

__all__ = ["ProcessGroup", "check", "check_rows", "rank_zero", "shared_gradients", "train_together"]


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
        with outside_forward():
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
    for unit in units(total.model, group.device):
        fully_shard(unit, mesh=mesh)
    return fully_shard(total, mesh=mesh)


def _gathered(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights on the first process's CPU; every process must take part."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
