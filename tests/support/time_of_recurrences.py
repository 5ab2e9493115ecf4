"""Where a compiled recurrence's time goes: `python -m tests.support.time_of_recurrences retention linear-memory-1`.

The recurrences of the plan `operation-speed` train on one row, native and chunked in turn: forward and backward, milliseconds of
the processor on one thread, the least of all rounds, and the median of the ratios within rounds. Beside a native step stand what
its compiled functions take (the rest is Python, autograd and copies), of a memory the same step token by token, and two floors:
the multiply-adds that the law needs on every number of its states, at the speed of large products of the same rounds; and inputs,
outputs and their gradients, written once and read once, at the speed of a copy of 64 MB.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from unittest.mock import patch

import torch

import baselines  # noqa: F401  fills the registry
from baselines.oracles.adapters.operation_alone import Given
from models.ops.neural_memory import native as memory
from models.ops.recording import Compiled
from results.plans import reader
from results.plans.contests import Contest
from results.plans.files import file_of, folder_of
from runner.build import layer
from runner.contests import operation
from schema.places import ROOT
from tasks.speed.contest import backward_step
from tasks.speed.small_numbers import as_zero
from tests.support.layers import cell_of

LAW = {  # multiply-adds on a number of the state a token: forward, and twice as many for their gradients
    "retention": 2,  # write, read
    "gated-linear-attention": 2,
    "delta-rule": 3,  # compare, write, read
    "gated-delta-rule": 3,
    "erase-and-write": 3,
    "linear-memory-1": 5,  # compare, momentum, write into the surprise, keep, read
    "linear-memory-16": 5,
    "deep-memory-16": 6,  # and the error's way back, through all layers but the first
}
FORMS = ("native", "chunked")
LARGE, COPIED = 1024, 1 << 24  # side of the product, numbers of the copy


@dataclass
class Clock:
    """Seconds of the processor inside compiled functions, of one step after another."""

    steps: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, calls of compiled functions are timed."""
        inner = Compiled.__call__

        def timed(function: Compiled, *given: object) -> object:
            begun = time.process_time()
            found = inner(function, *given)
            self.steps[-1] += time.process_time() - begun
            return found

        with patch.object(Compiled, "__call__", timed):
            yield


def contests(chosen: list[str]) -> list[Contest]:
    """The plan's contests between a native and a chunked form in training, or those chosen among them."""
    found = reader.load(file_of(folder_of(ROOT / "results", "operation-speed"))).contests
    own = [one for one in found if set(FORMS) <= {e.name for e in one.entrants} and one.direction == "training"]
    return [one for one in own if not chosen or one.name in chosen]


def taken(step: Callable[[], object]) -> float:
    """Seconds of the processor."""
    begun = time.process_time()
    step()
    return time.process_time() - begun


class Nothing(torch.autograd.Function):
    """`apply(shape, *inputs)` -> numbers of that shape, and gradients: whatever lies there."""

    @staticmethod
    def forward(ctx, shape, *inputs):
        ctx.save_for_backward(*inputs)
        return inputs[0].new_empty(shape)

    @staticmethod
    def backward(ctx, dy):
        return None, *(torch.empty_like(x) for x in ctx.saved_tensors)


def alone_of(contest: Contest, form: str, width: int, length: int) -> Given:
    """The recurrence of the contest's layer, with what the layer gives it."""
    entrant = next(e for e in contest.entrants if e.name == form)
    ours = {"opponent": ""}
    mixer = layer(cell_of(entrant.model, width, dict(entrant.settings)), ours)
    return operation(mixer, ours, torch.randn(1, length, width))


def token_by_token(step: Callable[[], object]) -> Callable[[], None]:
    """The step without pieces of many tokens, into which a memory of wide heads goes."""

    def run() -> None:
        with patch.object(memory, "FROM", math.inf):
            step()

    return run


def size_of(alone: Given) -> tuple[int, int]:
    """Numbers of all heads' states at all tokens, and bytes of what goes in and out, with its gradients, twice."""
    q, y = alone.inputs[0], alone()
    weights = alone.named.get("initial")
    numbers = q.shape[-1] * y.shape[-1] if weights is None else sum(w[0].numel() for w in weights)
    through = sum(x.numel() for x in alone.tensors()) + y.numel()
    return numbers * y.shape[1] * y.shape[2] if y.dim() == 4 else 0, 2 * 2 * 4 * through


def measured(contest: Contest, width: int, length: int, rounds: int) -> str:
    """A line about one recurrence."""
    alone = {form: alone_of(contest, form, width, length) for form in FORMS}
    steps = {form: backward_step(one, one.tensors()) for form, one in alone.items()}
    inputs, shape = alone["native"].tensors(), alone["native"]().shape
    steps["nothing"] = backward_step(lambda: Nothing.apply(shape, *inputs), inputs)
    if "memory" in contest.name:
        steps["token by token"] = token_by_token(steps["native"])
    a, b, source, target = torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE), *torch.zeros(2, COPIED)
    steps |= {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    clock, found = Clock(), {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            clock.steps += [0.0] if name == "native" else []
            with clock.running() if name == "native" else nullcontext():
                seconds = taken(step)
            found[name] += [seconds] if turn else []
    with torch.no_grad():
        numbers, moved = size_of(alone["native"])
    return told(contest.name, found, min(clock.steps[1:]), 3 * LAW.get(contest.name, 0) * numbers, moved)


def told(name: str, found: dict[str, list[float]], compiled: float, multiply_adds: int, moved: int) -> str:
    """The line: milliseconds, ratio, floors."""
    least = {one: min(seconds) * 1e3 for one, seconds in found.items()}
    ratio = statistics.median(a / b for a, b in zip(found["native"], found["chunked"], strict=True))
    rate, speed = LARGE**3 / least["product"], 4 * 2 * COPIED / least["copy"]
    line = f"{name}: chunked {least['chunked']:.2f} ms, native {least['native']:.2f}, ratio {ratio:.2f}"
    floors = (
        f"products {multiply_adds / rate:.2f}, memory {moved / speed:.2f}, an empty operation {least['nothing']:.2f}"
    )
    if "token by token" in least:
        line += f", token by token {least['token by token']:.2f}"
    return f"{line}; in C {compiled * 1e3:.2f}; floors: {floors}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contests", nargs="*", help="names of the plan operation-speed's side-by-side benchmarks")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for contest in contests(given.contests):
        for width in given.widths:
            for length in given.lengths:
                print(f"{width} / {length}: {measured(contest, width, length, given.rounds)}", flush=True)


if __name__ == "__main__":
    with as_zero():  # as while cells are timed: a layer that forgets would else time numbers too small to be normal
        main()
