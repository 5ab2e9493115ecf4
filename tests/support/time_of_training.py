"""Training speed of models over `transformer`'s, and their floors: `python -m tests.support.time_of_training atlas mambamixer`.

A setting stands behind the model's name: `routing:select=balanced`.

Models of the plan `generations` (width 64, depth 3, heads 4, float32) take steps in turn on 8 rows of 512 tokens and on one of
4,096; those of `cpu-speed` with `--width 128 --depth 5 --threads 2 --at 8x512 1x512 1x4096`. Printed are seconds, the least of
each, and the speed over the transformer's: of the processor on one thread, of the clock on several. Beside them the floor: what
the model's matrix products as its law counts them (three times those of a forward pass) take at the speed of large products, and
of products of 16 x 16, both measured in the same rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from models.matching import counts
from runner.commands.shared.arguments import settings_in

REFERENCE, VOCAB = "transformer", 256
SIZE = Size(VOCAB, 64, 3, 4)
SHAPES = ((8, 512), (1, 4096))
LARGE, SMALL, PRODUCTS = (
    512,
    16,
    4096,
)  # sides of the products that give the machine's speed; how many small ones go together


def model_of(asked: str, size: Size = SIZE) -> torch.nn.Module:
    """The model of a word: a registered name, or one with a setting."""
    name, _, setting = asked.partition(":")
    given = settings_in([f"{name}.{setting}"])[name] if setting else {}
    return seeded(name, size, 0, **given)


def step_of(model: torch.nn.Module, text: torch.Tensor) -> Callable[[], None]:
    """A training step without the optimiser's."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten()).backward()

    return step


def times(steps: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """The least seconds of each, taken in turn after one round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            begun = clock()
            step()
            if turn:
                taken[name].append(clock() - begun)
    return {name: min(found) for name, found in taken.items()}


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--shapes", type=int, default=len(SHAPES), help="how many of the two shapes, shortest text first"
    )
    parser.add_argument("--at", nargs="+", metavar="ROWSxTOKENS", help="other shapes, as 1x512")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=SIZE.width)
    parser.add_argument(
        "--depth", type=int, default=SIZE.depth, help="that of the transformer, whose parameters others match"
    )
    return parser.parse_args()


def main() -> None:
    given = asked()
    torch.set_num_threads(given.threads)
    size, clock = (
        Size(VOCAB, given.width, given.depth, 4),
        time.perf_counter if given.threads > 1 else time.process_time,
    )
    shapes = [tuple(map(int, one.split("x"))) for one in given.at] if given.at else SHAPES[: given.shapes]
    large, small = torch.randn(LARGE, LARGE), torch.randn(PRODUCTS, SMALL, SMALL)
    for rows, length in shapes:
        text = torch.randint(VOCAB, (rows, length + 1), generator=torch.Generator().manual_seed(0))
        models = {name: model_of(name, size) for name in (REFERENCE, *given.models)}
        steps: dict[str, Callable] = {name: step_of(model, text) for name, model in models.items()}
        products = {"large": lambda: large @ large, "small": lambda: torch.bmm(small, small)}
        found = times(steps | products, given.rounds, clock)
        speed = {"large": 2 * LARGE**3 / found["large"], "small": 2 * PRODUCTS * SMALL**3 / found["small"]}
        print(f"{rows} x {length}: products {speed['large'] / 1e9:.0f} GFLOP/s, small ones {speed['small'] / 1e9:.0f}")
        for name, model in models.items():
            work = 3 * rows * counts.flops(model, length).forward
            floors = ", ".join(f"{kind} {work / pace:.3f} s" for kind, pace in speed.items())
            ratio = found[REFERENCE] / found[name]
            print(
                f"  {name}: {found[name]:.3f} s, speed {ratio:.2f}; {work / 1e9:.1f} GFLOP, floor {floors}", flush=True
            )


if __name__ == "__main__":
    main()
