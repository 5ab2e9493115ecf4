"""A decoded token through the layers and from its record, in turn: `python -m tests.support.time_of_decoding mamba titans-lmm`.

Models of about 0.4M parameters (width 128, depth 2, heads 4, float32) decode one row on one thread, sixteen tokens a round, after
a text of 1,024. Printed are microseconds a token of wall clock: the least and the median of all rounds, of both, and their ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import torch

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from models.shell.decoding import without_records

SIZE = Size(256, 128, 2, 4)
CONTEXT, TOKENS = 1024, 16
WARM_UP = 5 * 64  # a kind of state comes again after 64 tokens at most, and has its record after four times
WAYS = {"layers": without_records, "record": contextlib.nullcontext}


@torch.no_grad()
def rounds(model: torch.nn.Module, count: int) -> dict[str, list[float]]:
    """Seconds a token in every round, of both ways in turn, each on a text of its own."""
    text = torch.randint(SIZE.vocab, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    states, found = {}, {way: [] for way in WAYS}
    for way, inside in WAYS.items():
        with inside():
            _, states[way] = model(text)
            for place in range(WARM_UP):
                _, states[way] = model(text[:, place : place + 1], states[way])
    for _ in range(count):
        for way, inside in WAYS.items():
            with inside():
                state, begun = states[way], time.perf_counter()
                for place in range(TOKENS):
                    _, state = model(text[:, place : place + 1], state)
                found[way].append((time.perf_counter() - begun) / TOKENS)
                states[way] = state
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("models", nargs="+")
    asked.add_argument("--rounds", type=int, default=30)
    asked.add_argument("--threads", type=int, default=1)
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.models:
        found = rounds(seeded(name, SIZE, 0).eval(), given.rounds)
        least, middle = ({way: 1e6 * of(times) for way, times in found.items()} for of in (min, statistics.median))
        shown = (f"{way} {least[way]:.0f} ({middle[way]:.0f})" for way in WAYS)
        print(f"{name}: {', '.join(shown)} us a token, {least['record'] / least['layers']:.2f}")


if __name__ == "__main__":
    main()
