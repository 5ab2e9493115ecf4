"""What the second process of a test imports: tasks whose rows ask unevenly or kill, small models, and ways to fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import torch
import torch.distributed as dist
from torch import nn

import baselines  # noqa: F401
from models.language_model import Size, build
from tasks.harness.data_parallel import ProcessGroup, train_together
from tasks.harness.snapshots import SharedSnapshots, Snapshots
from tasks.harness.train import Training, train
from tasks.task import IGNORE, Batch, Task

RUN = {"steps": 5, "batch_tokens": 240, "lr": 3e-3, "seed": 1}
MODELS = {
    "transformer": {},
    "gated-deltanet": {},
    "titans-mac": {"segment": 16, "chunk": 4},
    "rmt": {"segment": 16, "memory": 2},
}
# How the two save memory, which the one alone does not: one row at a time, a process's share of a batch being two or three.
SAVING = {
    "gated-deltanet": {"micro_batch_tokens": 40, "activation_checkpointing": True},
    "rmt": {"micro_batch_tokens": 80},
}


class Uneven(Task):
    """Random tokens; row i of a batch asks for a share of its places that grows with i, later batches have 5 rows."""

    name = "uneven"
    vocab = 32

    def training(self, seed, step, progress, tokens):
        draw = torch.Generator().manual_seed(1000 * seed + step)
        rows = torch.randint(32, (6 if step < 3 else 5, 41), generator=draw)
        share = torch.linspace(0.05, 1.0, len(rows))[:, None]
        asked = torch.rand(rows[:, 1:].shape, generator=draw) < share
        return Batch(rows[:, :-1], rows[:, 1:].masked_fill(~asked, IGNORE), {})

    def exams(self, split):
        return iter(())

    def mark(self, exam, answers):
        return ()

    def floors(self):
        return {}


class Deadly(Uneven):
    """Ends who draws the batch of a step, as `end` does."""

    def __init__(self, step: int, end: Callable[[], None]):
        super().__init__()
        self.step, self.end = step, end

    def training(self, seed, step, progress, tokens):
        if step == self.step:
            self.end()
        return super().training(seed, step, progress, tokens)


class Stopped(Exception):
    """A training was left in its middle."""


def stop() -> None:
    raise Stopped


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dropping(nn.Module):
    """Each process drops other inputs, as its own generator says; 33 tokens and 7 inputs make uneven shards."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(33, 7), nn.Linear(7, 32)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 7)) for _ in range(2))
        self.register_buffer("seen", torch.tensor([True, False]))

    def forward(self, tokens, state=None):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(nn.functional.dropout(x, 0.3, self.training))
        return self.out(x), ()


def resumed(group: ProcessGroup, path: str, task: Task) -> tuple[nn.Module, Training]:
    """A training that keeps a snapshot of every step at `path` and goes on from the one there; "" keeps none."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Dropping()
    torch.manual_seed(10 + group.rank)
    shared = None
    if path:
        shared = SharedSnapshots(Snapshots(path, minutes=0) if group.rank == 0 else None)
    return model, train_together(group, model, task, **RUN, snapshots=shared)


def undisturbed_and_resumed(group: ProcessGroup, paths: dict[str, str]) -> dict[str, list[tuple[nn.Module, Training]]]:
    """Of each way to share: a training that nobody disturbs, and one that goes on from its snapshot."""
    ways = {kind: group._replace(kind=kind) for kind in paths}
    return {kind: [resumed(ways[kind], one, Uneven()) for one in ("", path)] for kind, path in paths.items()}


def killed(group: ProcessGroup, paths: dict[str, str], step: int) -> None:
    """Trainings left before a step by an exception, the last of them by a kill of both processes: so one start serves all."""
    *others, last = paths
    for kind in others:
        with suppress(Stopped):
            resumed(group._replace(kind=kind), paths[kind], Deadly(step, stop))
    resumed(group._replace(kind=last), paths[last], Deadly(step, kill_myself))


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, Size(32, 16, 2, 2), match=False, **MODELS[name])


def alone(name: str) -> tuple[nn.Module, Training]:
    model = fresh(name)
    return model, train(model, Uneven(), **RUN)


def together(group: ProcessGroup, names: list[str]) -> dict[str, tuple[nn.Module, Training]]:
    """Each model trained by DDP and by FSDP2, in one process group: starting processes takes longer than training."""
    torch.set_num_threads(1)
    found = {}
    for name in names:
        for kind in ("ddp", "fsdp2"):
            model = fresh(name)
            found[name, kind] = (
                model,
                train_together(group._replace(kind=kind), model, Uneven(), **RUN, **SAVING.get(name, {})),
            )
    return found


def fail(group: ProcessGroup) -> None:
    raise MemoryError("out of memory on purpose")


def die(group: ProcessGroup) -> None:
    kill_myself()


def summed(group: ProcessGroup | None = None) -> float:
    """How many take part in a sum over the group."""
    one = torch.ones(1)
    dist.all_reduce(one)
    return one.item()


def linger(group: ProcessGroup, note: str) -> None:
    with open(note, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
