"""How long training steps take beside one another: candidates in turn, round after round, in one process.

Whatever else the machine does meets all candidates alike, so ratios are taken within a round and their median is reported. The
speed of a matrix product is measured in the same rounds: what a candidate's own products would take at that speed is its floor.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tasks.harness import peak_memory
from tasks.harness.precision import precision
from tasks.speed.quantiles import spread
from tasks.speed.small_numbers import as_zero
from tasks.task import Measurement

BUSY = 0.75  # least share of a round's wall time that our own threads must have computed, or the round is held again
TRIES = 3
MEMORY_ROUNDS = 2
PRODUCT = 1024  # rows and columns of the matrices whose product gives the machine's speed
TOKENS = 100  # that one step decodes, one after another: a single one takes no longer than a clock is looked at
CLOCKS = {  # of each direction: the metrics of a step's wall time and CPU time, and how many of their units a second of it is
    "training": ("training_step_seconds", "training_step_cpu_seconds", 1),
    "reading": ("reading_seconds", "reading_cpu_seconds", 1),
    "decoding": ("decoding_microseconds_per_token", "decoding_cpu_microseconds_per_token", 1e6 / TOKENS),
}
RATIOS = {
    metric: ratio
    for names in CLOCKS.values()
    for metric, ratio in zip(names, ("time_ratio", "cpu_time_ratio"), strict=False)
}
SAMPLE = "_sample"  # ends the metric of one round

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class TimedCandidate:
    """A name and what makes its training step; it takes part in the first `repeats` rounds, up to length `longest`.

    The matrix products of `counted` ones are counted, which gives them a floor.
    """

    name: str
    prepare: Callable[[], Step]
    repeats: int = 9
    longest: int | None = None
    counted: bool = True


@dataclass
class CandidateResult:
    """What is known of a candidate: its samples, or why it has none ("failed", "absent" or "left out", and the reason)."""

    walls: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    flops: int | None = None
    finite: bool = True
    status: str = "ok"
    reason: str = ""

    def lose(self, reason: str, status: str = "failed") -> None:
        self.status, self.reason = status, reason


@dataclass
class Outcome:
    """A benchmark at one length: results by candidate, seconds of a matrix product in each round, load before and after."""

    standings: dict[str, CandidateResult]
    products: list[float]
    load: tuple[float, float]


def layer_step(forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], x: Tensor) -> Step:
    """A step of one layer: forward and backward to its parameters and its input x [b, t, width], a leaf of its own."""
    x = x.clone()
    return backward_step(lambda: forward(x), [x, *parameters])


def backward_step(forward: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Step:
    """A step that computes forward and backward to `leaves`, from a cotangent that is the same each time."""
    for leaf in leaves:
        leaf.requires_grad_()
    cotangent = None

    def step() -> Tensor:
        nonlocal cotangent
        for leaf in leaves:
            leaf.grad = None
        y = forward()
        if cotangent is None:
            cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        y.backward(cotangent)
        return y.detach()

    return step


def reading_step(forward: Callable[..., Tensor], *inputs: Tensor) -> Step:
    """A step that computes forward alone, without keeping anything for a gradient."""

    def step() -> Tensor:
        with torch.no_grad():
            return forward(*inputs)

    return step


def decoding_step(token: Callable[[], Tensor]) -> Step:
    """A step that decodes TOKENS tokens, each from where the one before left the state, and returns the last one's output."""

    def step() -> Tensor:
        with torch.no_grad():
            for _ in range(TOKENS - 1):
                token()
            return token()

    return step


def hold(
    entrants: Sequence[TimedCandidate],
    *,
    length: int,
    limit: float,
    dtype: str,
    device: str,
    progress: Callable[[dict[str, Any]], None] = lambda news: None,
) -> Outcome:
    """Prepare, warm up and time the candidates in turn; whoever fails, is absent or needs more than `limit` s a step drops out.

    An ImportError in `prepare` makes a candidate absent. Raises ValueError for another dtype than `precision` knows.
    """
    outcome = Outcome({entrant.name: CandidateResult() for entrant in entrants}, [], (os.getloadavg()[0],) * 2)
    begun = outcome.load[0]
    with precision(dtype, device), as_zero():
        steps = {}
        for entrant in entrants:
            progress({"length": length, "entrant": entrant.name})
            step = _entered(entrant, outcome.standings[entrant.name], length, limit, device)
            if step is not None:
                steps[entrant.name] = step
        product = _product(dtype, device)
        product()
        shares = {e.name: e.repeats for e in entrants if e.name in steps}
        for number in range(max(shares.values(), default=0)):
            progress({"length": length, "round": number})
            taking = [name for name, share in shares.items() if number < share]
            turn = number % len(taking)
            _round(taking[turn:] + taking[:turn], steps, product, outcome, device)
        for name in shares:
            _peaks(steps[name], outcome.standings[name], device)
    outcome.load = (begun, os.getloadavg()[0])
    return outcome


def _entered(entrant: TimedCandidate, standing: CandidateResult, length: int, limit: float, device: str) -> Step | None:
    """The step of a candidate that has been warmed up and may take part, else None and its result says why."""
    if entrant.longest is not None and length > entrant.longest:
        return standing.lose(f"the plan times it up to length {entrant.longest:,}", "left out")
    try:
        step = entrant.prepare()
        seconds, _, y = _clocked(step, device)
        standing.finite = bool(torch.isfinite(y).all())
        if seconds > limit:
            return standing.lose(f"too slow: one step took {seconds:.0f} s, more than the limit of {limit:g} s")
        if entrant.counted:
            standing.flops = count_flops(step)
        return step
    except ImportError as error:
        return standing.lose(" ".join(str(error).split()), "absent")
    except Exception as error:  # whatever a candidate does wrong is a result of the side-by-side benchmark, not its end
        return standing.lose(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _round(names: list[str], steps: dict[str, Step], product: Step, outcome: Outcome, device: str) -> None:
    """Each candidate once; held again, the last time counting, while the machine was busy with something else."""
    for _ in range(TRIES):
        times = {name: _clocked(steps[name], device)[:2] for name in names}
        seconds = _clocked(product, device)[0]
        wall, own = (sum(pair[i] for pair in times.values()) for i in (0, 1))
        if device != "cpu" or own >= BUSY * wall:
            break
    outcome.products.append(seconds)
    for name, (wall, own) in times.items():
        outcome.standings[name].walls.append(wall)
        outcome.standings[name].processor.append(own)


def _peaks(step: Step, standing: CandidateResult, device: str) -> None:
    for _ in range(MEMORY_ROUNDS):
        start = peak_memory.reset_peak(device)
        step()
        standing.peaks.append(peak_memory.peak(device) - start)


def _clocked(step: Step, device: str) -> tuple[float, float, Tensor]:
    """Wall seconds, seconds of all our threads together, and what the step returned."""
    wall, own = time.perf_counter(), time.process_time()
    y = step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - own, y


def _product(dtype: str, device: str) -> Step:
    number = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(PRODUCT, PRODUCT, generator=draw).to(device, number) for _ in range(2))
    return lambda: a @ b


def product_rate(dtype: str, device: str, repeats: int = 9) -> float:
    """Floating-point operations a second of the product of two large matrices: the median of `repeats`."""
    product = _product(dtype, device)
    product()
    return 2 * PRODUCT**3 / statistics.median(_clocked(product, device)[0] for _ in range(repeats))


def count_flops(step: Step) -> int:
    """Floating-point operations of the matrix products in one step, two for a multiply and an add."""
    cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mapping = {
        cpu: _attention_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    counter.mod_tracker = _Untold()
    with counter:
        step()
    return counter.get_total_flops()


class _Untold:
    """In the place of the counter's look at modules, which fails where a backward pass takes gradients through one of them."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _attention_flops(
    q: Any, k: Any, v: Any, dropout: float = 0.0, causal: bool = False, *rest: Any, **named: Any
) -> int:
    """Fused attention [b, h, t, d]: two products, of which a causal one needs half."""
    batch, heads, rows, width = q
    return 2 * batch * heads * rows * k[2] * (width + v[3]) // (2 if causal else 1)


def _backward_flops(
    grad: Any, q: Any, k: Any, v: Any, y: Any, sums: Any, dropout: float, causal: bool, *rest, **named
) -> int:
    """Its backward: five products, one of them the scores again."""
    return _attention_flops(q, k, v, dropout, causal) * 5 // 2


def clocked_rounds(
    metric: str, rounds: Mapping[str, Sequence[float]], reference: str, where: dict[str, Any]
) -> Iterator[tuple[str, Measurement]]:
    """(candidate, measurement) of what each took in its rounds by one of the clocks: spread, and ratios within rounds."""
    for name, samples in rounds.items():
        yield from ((name, m) for m in spread(metric, samples, where))
        pairs = [own / other for own, other in zip(samples, rounds.get(reference, ()), strict=False) if other > 0]
        yield from ((name, m) for m in (spread(RATIOS[metric], pairs, where) if pairs else ()))


def findings(
    outcome: Outcome, reference: str, where: dict[str, Any], direction: str = "training"
) -> Iterator[tuple[str, Measurement]]:
    """(candidate, measurement) of everything measured; ratios are to the reference candidate, within rounds.

    `direction`, one of CLOCKS, names the metrics of time.
    """
    rival = outcome.standings[reference]
    timed = {name: mine for name, mine in outcome.standings.items() if mine.status == "ok"}
    *clocks, units = CLOCKS[direction]
    walls = {name: [units * seconds for seconds in mine.walls] for name, mine in timed.items()}
    processor = {name: [units * seconds for seconds in mine.processor] for name, mine in timed.items()}
    for metric, rounds in zip(clocks, (walls, processor), strict=True):
        yield from clocked_rounds(metric, rounds, reference, where)
        for name, samples in rounds.items():
            for number, sample in enumerate(samples):
                yield name, Measurement(metric + SAMPLE, sample, 1, {**where, "round": number})
    for name, mine in timed.items():
        held = statistics.median(mine.peaks)
        yield name, Measurement("peak_memory_bytes", float(held), len(mine.peaks), where)
        if rival.peaks and statistics.median(rival.peaks) > 0:
            yield name, Measurement("memory_ratio", held / statistics.median(rival.peaks), len(mine.peaks), where)
        yield name, Measurement("finite_output", float(mine.finite), 1, where)
        if mine.flops:
            floor = mine.flops / (2 * PRODUCT**3 / statistics.median(outcome.products))
            yield name, Measurement("step_flops", float(mine.flops), 1, where)
            distance = statistics.median(mine.walls) / floor
            yield name, Measurement("times_the_floor", distance, len(mine.walls), where)
    first = next((name for name, standing in outcome.standings.items() if standing.status == "ok"), None)
    if first is not None:
        rates = [2 * PRODUCT**3 / seconds for seconds in outcome.products]
        yield first, Measurement("matrix_product_flops_per_second", statistics.median(rates), len(rates), where)
        for when, load in zip(("before", "after"), outcome.load, strict=True):
            yield first, Measurement("machine_load", load, 1, {**where, "when": when})
