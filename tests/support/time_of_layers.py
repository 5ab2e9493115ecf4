"""Whole layers over the floor of their dense products: `python -m tests.support.time_of_layers deltanet mamba titans-lmm`.

A layer trains forward and backward, its recurrence as `auto` takes it. Its products are those that PyTorch was asked for in
such a step, the gradients' among them (what a compiled function multiplies is none): they are made again by themselves, of the
same shapes and layouts, in turn with the whole step. Printed are milliseconds of the processor on one thread, the least of all
rounds, and the median of the ratios within rounds; and where the rest goes: in compiled functions, and in PyTorch's other
operators and Python.

A setting stands behind the model's name: `titans-lmm:memory_depth=1`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import baselines  # noqa: F401  fills the registry
from runner.build import layer
from runner.commands.shared.arguments import settings_in
from tasks.speed.contest import Step, layer_step
from tasks.speed.small_numbers import as_zero
from tests.support.layers import cell_of
from tests.support.time_of_recurrences import Clock, taken

PRODUCTS = tuple(getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm"))
LAYERS = (
    "deltanet", "gated-deltanet", "retnet", "gla", "kda", "mamba", "mamba2", "titans-lmm:memory_depth=1", "titans-lmm",
    "ttt-linear",
)  # fmt: skip


class Products(TorchDispatchMode):
    """Inside, matrix products are kept with what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in PRODUCTS:
            self.calls.append((function, args, kwargs))
        return function(*args, **kwargs)


def products_of(step: Step) -> Callable[[], None]:
    """The products of a step by themselves."""
    with Products() as found:
        step()

    def again() -> None:
        with torch.no_grad():
            for function, args, kwargs in found.calls:
                function(*args, **kwargs)

    return again


def measured(word: str, width: int, batch: int, length: int, rounds: int) -> str:
    """A line about one layer."""
    name, _, setting = word.partition(":")
    settings = settings_in([f"{name}.{setting}"])[name] if setting else {}
    mixer = layer(cell_of(name, width, settings), {"opponent": ""})
    step = layer_step(lambda x: mixer(x)[0], list(mixer.parameters()), torch.randn(batch, length, width))
    step()
    products, clock, pairs = products_of(step), Clock(), []
    for _ in range(rounds + 1):
        clock.steps.append(0.0)
        with clock.running():
            whole = taken(step)
        pairs.append((whole, taken(products)))
    whole, floor = (min(one) * 1e3 for one in zip(*pairs[1:], strict=True))
    ratio, compiled = statistics.median(a / b for a, b in pairs[1:]), min(clock.steps[1:]) * 1e3
    rest = whole - floor - compiled
    return (
        f"{word}: {whole:.1f} ms, its products {floor:.1f}, ratio {ratio:.2f}; in C {compiled:.1f}, the rest {rest:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", default=LAYERS)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--at", nargs="+", metavar="ROWSxTOKENS", default=["1x512", "1x4096"])
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for shape in given.at:
        batch, length = map(int, shape.split("x"))
        for word in given.layers:
            print(f"{shape}: {measured(word, given.width, batch, length, given.rounds)}", flush=True)


if __name__ == "__main__":
    with as_zero():  # as while cells are timed: a layer that forgets would else time numbers too small to be normal
        main()
