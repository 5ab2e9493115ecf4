"""The one training loop: any callable with the model's contract, on any task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from schema.terms import Progress
from schema.weight_decay import groups
from tasks.harness.loss import Gradients, checkpointed, gradients
from tasks.harness.precision import precision
from tasks.task import Batch, Task

WARM_UP = 0.1  # share of the steps over which the learning rate rises
LAST_RATE = 0.1  # share of the peak that the cosine ends at
CLIP = 1.0
WEIGHT_DECAY = 0.1
DECAYED = "where a parameter's class declares it (not on norms, biases, constants of gates)"  # in words, for the rows
BETAS = (0.9, 0.95)
LATE = 20  # steps after which the losses of a GPU are read


class Training(NamedTuple):
    """What a training run left besides the trained model."""

    losses: list[float]  # mean loss of each step, nats per asked token
    tokens: int
    seconds: float


class SnapshotKeeper(Protocol):
    """Where a training in progress is kept, for going on after a kill: `tasks.harness.snapshots.Snapshots`."""

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Training | None:
        """What was done before, the model and the optimiser brought there; None to begin at the first step."""

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """Called after every step but the last at which losses are read (`read_every`)."""


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


def optimiser(model: nn.Module, lr: float, device: str = "cpu") -> torch.optim.AdamW:
    """AdamW, in one kernel on a GPU; which parameters decay, their classes declare (`schema/weight_decay.py`)."""
    return torch.optim.AdamW(groups(model, WEIGHT_DECAY), lr=lr, betas=BETAS, fused=True if device == "cuda" else None)


def tell_warm_up(model: nn.Module, share: float) -> None:
    """Tell each module that asks for it (by a method `warm_up`) the share of the warm-up that is done, from 0 to 1.

    For what an architecture itself raises at the beginning of a training, as TTT-MLP its inner rate.
    """
    for module in model.modules():
        if callable(getattr(module, "warm_up", None)):
            module.warm_up(share)


class Ahead:
    """Training batches in their order; on a GPU the next one is drawn, in pinned memory, while it computes."""

    def __init__(self, draw: Callable[[int], Batch], steps: range, ahead: bool) -> None:
        self.draw, self.steps, self.ahead = draw, steps, ahead

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        """Each step and its batch. What drawing raises is raised at the step that it belongs to."""
        if not self.ahead:
            yield from ((step, self.draw(step)) for step in self.steps)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting = [thread.submit(self._pinned, step) for step in self.steps[:1]]
            for step in self.steps:
                batch = waiting.pop().result()
                waiting = [thread.submit(self._pinned, step + 1)] if step + 1 in self.steps else []
                yield step, batch

    def _pinned(self, step: int) -> Batch:
        batch = self.draw(step)
        if not torch.cuda.is_available():
            return batch
        return batch._replace(tokens=batch.tokens.pin_memory(), targets=batch.targets.pin_memory())


def read_every(device: str) -> int:
    """After how many steps the losses are read, and whoever keeps the training is told."""
    return LATE if device == "cuda" else 1


class Losses:
    """The losses of a training. On a GPU they are read some steps late, together, for to read one is to wait for it."""

    def __init__(self, before: list[float], steps: int, late: int) -> None:
        self.values, self.steps, self.late, self.unread = before, steps, late, []

    def add(self, mean: Tensor) -> None:
        """Take a step's loss; raises as `read` does."""
        self.unread.append(mean)
        if len(self.unread) >= self.late:
            self.read()

    def read(self) -> list[float]:
        """All losses so far. Raises FloatingPointError for the first that is no longer finite."""
        found, self.unread = torch.stack(self.unread).tolist() if self.unread else [], []
        for value in found:
            if not math.isfinite(value):
                raise FloatingPointError(f"diverged: the loss is {value} at step {len(self.values)} of {self.steps}")
            self.values.append(value)
        return self.values


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
    micro_batch_tokens: int = 0,
    activation_checkpointing: bool = False,
    progress: Progress | None = None,
    snapshots: SnapshotKeeper | None = None,
    gradients_of: Gradients | None = None,
) -> Training:
    """Train `model` on `task` for `steps` steps of about `batch_tokens` tokens; data order depends on `seed` alone.

    Loss is the mean over asked targets; `micro_batch_tokens` and `activation_checkpointing` save memory (`loss.py`), and
    `gradients_of` takes the gradients otherwise than in this process alone (`data_parallel.py`). `progress` is told step,
    steps, loss and tokens_per_second about twice a second. With `snapshots` it goes on from the last one; what is
    returned is then of the whole training, the seconds of all its resumed runs. Raises FloatingPointError when the loss is
    no longer finite.
    """
    model.to(device).train()
    gradients_of = gradients_of or partial(gradients, model, device, micro_batch_tokens)
    adam = optimiser(model, lr, device)
    before = snapshots.restore(model, adam) if snapshots is not None else None
    done, tokens, seconds = before or Training([], 0, 0.0)
    late = read_every(device)
    losses = Losses(done, steps, late)
    begun, told = time.perf_counter() - seconds, 0.0
    batches = Ahead(
        lambda step: task.training(seed, step, step / steps, batch_tokens), range(len(done), steps), device == "cuda"
    )
    with checkpointed(model, activation_checkpointing):
        for step, batch in batches:
            for group in adam.param_groups:
                group["lr"] = lr * schedule(step, steps)
            tell_warm_up(model, min(1.0, step / _warm_steps(steps)))
            adam.zero_grad(set_to_none=True)
            with precision(dtype, device):
                losses.add(gradients_of(batch))
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            adam.step()
            tokens += batch.tokens.numel()
            now = time.perf_counter()
            if progress is not None and (now - told > 0.5 or step == steps - 1):
                told = now
                speed = tokens / (now - begun)
                progress({"step": step + 1, "steps": steps, "loss": losses.read()[-1], "tokens_per_second": speed})
            if snapshots is not None and (step + 1) % late == 0 and step + 1 < steps:
                so_far = Training(losses.read(), tokens, (now := time.perf_counter()) - begun)  # to wait is training
                snapshots.keep(model, adam, so_far)
                begun += time.perf_counter() - now  # what a snapshot takes is no training
    tell_warm_up(model, 1.0)  # a training shorter than its warm-up leaves the model as the longest does
    return Training(losses.read(), tokens, time.perf_counter() - begun)
