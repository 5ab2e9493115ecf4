"""Timing cells: one model's speed, memory and state against the length of the context."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

import tasks
from models.matching import counts
from models.matching.counts import parameter_count, state_bytes
from models.ops.dense.half_weights import half_weights
from models.shell.compiled import compiled
from results.cell import Cell
from runner.build import build
from runner.checkpoints import added_memory
from schema.terms import Progress
from tasks.speed.throughput import Throughput
from tasks.speed.throughput import measure as measure_throughput

ERROR_TOKENS = 256  # of random text, by which the error of rounded weights is measured


def timed(cell: Cell, progress: Progress) -> dict[str, Any]:
    settings = tasks.checked("throughput", Throughput, cell.task_settings)
    model = added_memory.timed(cell, build(cell, 256))
    found, begun, kept = [], time.perf_counter(), []
    run = {"dtype": cell.dtype, "device": cell.device, "keep": kept.append}
    error = _rounded(model, cell.device) if settings.weights == "bfloat16" else None
    with compiled(model, settings.compile):
        for m in measure_throughput(model, settings, state_bytes, **run):
            found.append((None, *m))
            progress(m.where)
    for length in settings.lengths:
        work = counts.training_flops(model, length)
        if work is not None:
            found.append((None, "training_flops_per_token", work, 1, {"length": length}))
    if error is not None:
        found.append((None, "weights_error", error, ERROR_TOKENS, {}))
    found.append((None, "timing_seconds", time.perf_counter() - begun, 1, {}))
    parameters = parameter_count(model)
    state = max(int(m[2]) for m in found if m[1] == "state_bytes")
    timed = {"parameters": parameters, "state_bytes": state, "protocol": "timing", "measurements": found}
    return timed | {"predictions": kept}


@torch.no_grad()
def _rounded(model: nn.Module, device: str) -> float:
    """Round a model's weights to bfloat16; the largest difference of a logit by it, over the largest logit.

    Raises ValueError off the CPU, where nothing would read them so.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(
            f'Compiled code on a CPU reads weights in bfloat16, not {device}: leave weights = "bfloat16" out.'
        )
    text = torch.randint(256, (1, ERROR_TOKENS), generator=torch.Generator().manual_seed(1))
    exact = model(text)[0]
    half_weights(model)
    return float((model(text)[0] - exact).abs().max() / exact.abs().max())
