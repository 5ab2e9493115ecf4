"""How fast a model is and what it holds: training, prefill and decoding against context length.

Every figure is a median over repeats after a warm-up, with its 10 % and 90 % quantiles as metrics of their own. Where
the processor was busy with something else the repeats are taken again. Decoding warms up until tokens run from a record, as
those of a longer text do.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schema.terms import DECODING_WARM_UP
from tasks.harness import peak_memory
from tasks.harness.precision import precision
from tasks.speed.quantiles import spread
from tasks.speed.small_numbers import as_zero
from tasks.task import Measurement

BUSY = 0.75  # least share of the wall time that our own thread must have computed, or the repeats are taken again
TRIES = 3
MEDIAN_ONLY = ("peak_memory_bytes",)
WEIGHTS = ("float32", "bfloat16")

Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Throughput:
    """The settings of a timing: context lengths, rows of a training batch, repeats, and tokens decoded at each length.

    `decode_only` leaves training and prefill out and reaches each length in pieces of `piece` tokens, the state carried from
    one length to the next; 1 is a decode of the whole context. `compile` puts the whole model through torch.compile.
    With `weights = "bfloat16"` the weights of maps and embeddings are rounded to it and read so; states stay float32.
    """

    lengths: tuple[int, ...] = (256, 1024, 4096)
    batch_tokens: int = 4096
    repeats: int = 5
    decode: int = 16
    decode_only: bool = False
    piece: int = 1024
    compile: bool = False
    weights: str = WEIGHTS[0]

    def __post_init__(self):
        if self.weights not in WEIGHTS:
            raise ValueError(f"throughput.weights must be {' or '.join(WEIGHTS)}, not {self.weights!r}.")
        if self.weights != WEIGHTS[0] and not self.decode_only:
            raise ValueError('throughput.weights = "bfloat16" is for decoding: set decode_only = true beside it.')
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"throughput.lengths must be positive context lengths, not {self.lengths}.")
        if min(self.repeats, self.decode, self.batch_tokens, self.piece) < 1:
            raise ValueError("throughput.repeats, decode, batch_tokens and piece must each be at least 1.")


def measure(
    model: nn.Module,
    settings: Throughput,
    state_bytes: Callable[[Any], int],
    *,
    dtype: str,
    device: str,
    vocab: int = 256,
    keep: Keep = lambda samples: None,
) -> Iterator[Measurement]:
    """Yield the measurements of one model: speed, memory and state at each context length; `count` is the repeats.

    `keep` is told the raw samples behind each median, as `from_samples` takes them.
    """
    model.to(device)
    before = os.getloadavg()[0]
    with precision(dtype, device), as_zero():
        if settings.decode_only:
            yield from _decoding(model, settings, state_bytes, device, vocab, keep)
        else:
            for length in settings.lengths:
                yield from _at_length(model, settings, length, state_bytes, device, vocab, keep)
    yield Measurement("machine_load", before, 1, {"when": "before"})
    yield Measurement("machine_load", os.getloadavg()[0], 1, {"when": "after"})


def _at_length(
    model: nn.Module,
    settings: Throughput,
    length: int,
    state_bytes: Callable[[Any], int],
    device: str,
    vocab: int,
    keep: Keep,
) -> Iterator[Measurement]:
    """Training, prefill and decoding at one context length."""
    rows = max(1, settings.batch_tokens // length)
    tokens = torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)
    where = {"length": length}
    peak: list[int] = []
    times = _timed(lambda: train_step(model, tokens), settings.repeats, device, peak)
    yield from _kept("training_tokens_per_second", [tokens.numel() / t for t in times], where, keep)
    yield from _kept("peak_memory_bytes", peak, where, keep)
    with torch.no_grad():
        times = _timed(lambda: model(tokens), settings.repeats, device)
        yield from _kept("prefill_tokens_per_second", [tokens.numel() / t for t in times], where, keep)
        _, state = model(tokens[:1])
        times = _timed(
            lambda: _decode(model, tokens[:1], state, settings.decode),
            settings.repeats,
            device,
            warm_up=DECODING_WARM_UP,
        )
        largest = max(map(state_bytes, over_a_period(model, tokens[:1], state)))
    yield Measurement("state_bytes", float(largest), 1, where)
    yield from _kept("decoding_milliseconds_per_token", [1e3 * t / settings.decode for t in times], where, keep)


@torch.no_grad()
def _decoding(
    model: nn.Module, settings: Throughput, state_bytes: Callable[[Any], int], device: str, vocab: int, keep: Keep
) -> Iterator[Measurement]:
    """Decoding alone, the context reached in pieces; each repeat goes on where the one before it ended.

    `finite_output` is 1 where every logit so far was a finite number.
    """
    draw, state, at, finite = torch.Generator().manual_seed(0), None, 0, True
    for length in sorted(settings.lengths):
        while at < length:
            piece = torch.randint(vocab, (1, min(settings.piece, length - at)), generator=draw).to(device)
            logits, state = model(piece, state)
            finite, at = finite and bool(torch.isfinite(logits).all()), at + piece.shape[1]
        where, ends = {"length": length}, [state]
        tokens = torch.randint(vocab, (1, settings.decode), generator=draw).to(device)

        def further(ends: list = ends, tokens: Tensor = tokens) -> None:
            ends.append(_decode(model, tokens, ends.pop(), settings.decode))

        times = _timed(further, settings.repeats, device, warm_up=DECODING_WARM_UP)
        largest = max(map(state_bytes, over_a_period(model, tokens, ends[0])))
        yield Measurement("state_bytes", float(largest), 1, where)
        yield from _kept("decoding_milliseconds_per_token", [1e3 * t / settings.decode for t in times], where, keep)
        yield Measurement("finite_output", float(finite), length, where)


def train_step(model: nn.Module, tokens: Tensor) -> Tensor:
    """Forward and backward of next-token prediction on tokens [b, t]; returns the logits."""
    model.zero_grad(set_to_none=True)
    logits, _ = model(tokens[:, :-1] if tokens.shape[1] > 1 else tokens)
    F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, -logits.shape[1] :].flatten()).backward()
    return logits.detach()


def _decode(model: nn.Module, tokens: Tensor, state: Any, count: int) -> Any:
    for step in range(count):
        _, state = model(tokens[:, step % tokens.shape[1]][:, None], state)
    return state


def over_a_period(model: nn.Module, tokens: Tensor, state: Any) -> Iterator[Any]:
    """The state and those after it over one period: a segment's cache is empty at its border and full before it."""
    yield state
    for _ in range(getattr(model, "period", 1)):
        _, state = model(tokens[:, :1], state)
        yield state


def _timed(
    action: Callable[[], Any], repeats: int, device: str, peak: list[int] | None = None, warm_up: int = 1
) -> list[float]:
    """Wall seconds of each repeat after the warm-up; the repeats are taken again while the machine was busy elsewhere."""
    for _ in range(warm_up):
        action()
    for _ in range(TRIES):
        times, computed = [], 0.0
        if peak is not None:
            peak.clear()
        for _ in range(repeats):
            start = peak_memory.reset_peak(device)
            wall, own = time.perf_counter(), time.process_time()
            action()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - wall)
            computed += time.process_time() - own
            if peak is not None:
                peak.append(peak_memory.peak(device) - start)
        if device != "cpu" or computed >= BUSY * sum(times):
            break
    return times


def _kept(metric: str, samples: list[float], where: dict[str, Any], keep: Keep) -> list[Measurement]:
    keep({"metric": metric, "where": where, "samples": samples.copy()})
    return _measurements(metric, samples, where)


def from_samples(records: list[dict[str, Any]]) -> list[Measurement]:
    """The measurements that kept samples give; ValueError for a record that holds none."""
    found: list[Measurement] = []
    for record in records:
        samples = record.get("samples")
        if not samples or not all(isinstance(sample, (int, float)) for sample in samples):
            raise ValueError(f"The record of {record.get('metric')} at {record.get('where')} holds no samples.")
        found += _measurements(record["metric"], samples, record["where"])
    return found


def _measurements(metric: str, samples: list[float], where: dict[str, Any]) -> list[Measurement]:
    if metric in MEDIAN_ONLY:
        return [Measurement(metric, float(statistics.median(samples)), len(samples), where)]
    return list(spread(metric, samples, where))
