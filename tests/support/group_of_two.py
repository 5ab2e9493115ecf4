"""What the second process of a test imports: a task whose rows ask unevenly, small models, and ways to fail."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import nn

import baselines  # noqa: F401
from models.language_model import Size, build
from tasks.harness.data_parallel import ProcessGroup, train_together
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
    os.kill(os.getpid(), signal.SIGKILL)


def linger(group: ProcessGroup, note: str) -> None:
    with open(note, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
