"""The one training loop: any callable with the model's contract, on any task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schema.terms import Progress
from schema.weight_decay import groups
from tasks.harness.precision import precision
from tasks.task import IGNORE, Batch, Task

WARM_UP = 0.1  # share of the steps over which the learning rate rises
LAST_RATE = 0.1  # share of the peak that the cosine ends at
CLIP = 1.0
WEIGHT_DECAY = 0.1
DECAYED = "where a parameter's class declares it (not on norms, biases, constants of gates)"  # in words, for the rows
BETAS = (0.9, 0.95)


class Training(NamedTuple):
    """What a training run left besides the trained model."""

    losses: list[float]  # mean loss of each step, nats per asked token
    tokens: int
    seconds: float


# Of one batch: what this process differentiates, and the mean over all asked targets, which is the step's loss.
Loss = Callable[[Batch], tuple[Tensor, Tensor]]


class SnapshotKeeper(Protocol):
    """Where a training in progress is kept, for going on after a kill: `tasks.harness.snapshots.Snapshots`."""

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Training | None:
        """What was done before, the model and the optimiser brought there; None to begin at the first step."""

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """Called after every step but the last."""


def recipe() -> dict[str, str]:
    """How every model is trained, in words, for the rows."""
    return {
        "optimiser": f"AdamW, betas {BETAS[0]} and {BETAS[1]}, weight decay {WEIGHT_DECAY} {DECAYED}, clip {CLIP}",
        "schedule": f"{WARM_UP:.0%} linear warm-up, cosine to {LAST_RATE:.0%} of the peak",
    }


def _warm_steps(steps: int) -> int:
    return max(1, round(WARM_UP * steps))


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a cosine down to LAST_RATE."""
    warm = _warm_steps(steps)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def optimiser(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW; which parameters decay, the classes that own them declare (`schema/weight_decay.py`)."""
    return torch.optim.AdamW(groups(model, WEIGHT_DECAY), lr=lr, betas=BETAS)


def tell_warm_up(model: nn.Module, share: float) -> None:
    """Tell each module that asks for it (by a method `warm_up`) the share of the warm-up that is done, from 0 to 1.

    For what an architecture itself raises at the beginning of a training, as TTT-MLP its inner rate.
    """
    for module in model.modules():
        if callable(getattr(module, "warm_up", None)):
            module.warm_up(share)


def mean_loss(model: nn.Module, device: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """The `Loss` of one process alone: the mean over asked targets, which is also what is differentiated."""
    logits, _ = model(batch.tokens.to(device))
    asked = batch.targets != IGNORE
    loss = F.cross_entropy(logits[asked].float(), batch.targets[asked].to(device))
    return loss, loss


def train(
    model: nn.Module,
    task: Task,
    *,
    steps: int,
    batch_tokens: int,
    lr: float,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
    snapshots: SnapshotKeeper | None = None,
    loss_of: Loss | None = None,
) -> Training:
    """Train `model` on `task` for `steps` steps of about `batch_tokens` tokens; data order depends on `seed` alone.

    Loss is the mean over asked targets; `loss_of` takes it otherwise than in this process alone (`data_parallel.py`).
    `progress` is told step, steps, loss and tokens_per_second about twice a second. With `snapshots` it goes on from the
    last one; what is returned is then of the whole training, the seconds of all its resumed runs. Raises FloatingPointError
    when the loss is no longer finite.
    """
    model.to(device).train()
    loss_of = loss_of or partial(mean_loss, model, device)
    adam = optimiser(model, lr)
    before = snapshots.restore(model, adam) if snapshots is not None else None
    losses, tokens, seconds = before or Training([], 0, 0.0)
    begun, told = time.perf_counter() - seconds, 0.0
    for step in range(len(losses), steps):
        batch = task.training(seed, step, step / steps, batch_tokens)
        for group in adam.param_groups:
            group["lr"] = lr * schedule(step, steps)
        tell_warm_up(model, min(1.0, step / _warm_steps(steps)))
        with precision(dtype, device):
            loss, mean = loss_of(batch)
            adam.zero_grad(set_to_none=True)
            loss.backward()
        value = mean.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"diverged: the loss is {value} at step {step} of {steps}")
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        losses.append(value)
        tokens += batch.tokens.numel()
        now = time.perf_counter()
        if progress is not None and (now - told > 0.5 or step == steps - 1):
            told = now
            speed = tokens / (now - begun)
            progress({"step": step + 1, "steps": steps, "loss": value, "tokens_per_second": speed})
        if snapshots is not None and step + 1 < steps:
            snapshots.keep(model, adam, Training(losses, tokens, now - begun))
            begun += time.perf_counter() - now  # what a snapshot takes is no training
    tell_warm_up(model, 1.0)  # a training shorter than its warm-up leaves the model as the longest does
    return Training(losses, tokens, time.perf_counter() - begun)
