"""Test-time training compiled: mini-batches in C (`models/ops/associative_memory/native`), to the last digits of the law."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.native.memory import Form, remember
from models.ops.native_build import kind_of
from models.ops.providers import NotCovered
from models.ops.ttt.recurrence import EPSILON, Norm, State, Weights, recurrence

TANH_GELU = 2  # memory.c's ACTIVATION


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: Tensor,
    factor: Tensor,
    weights: Weights,
    norm: Norm,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.ttt.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered for layers of several hidden widths, off the CPU, and where no library can be built.
    """
    dtype, kind, depth = q.dtype, kind_of(q), len(weights)
    if len({layer.shape[-1] for layer in weights[:-1]}) > 1:
        raise NotCovered("The compiled network has hidden layers of one width; use provider chunked.")
    if not q.numel():
        return recurrence(q, k, v, rate=rate, factor=factor, weights=weights, norm=norm, state=state)
    with torch.autocast("cpu", enabled=False):
        q, k, v, rate, factor = (x.to(kind) for x in (q, k, v, rate, factor))
        scale, bias = (part.to(kind) for part in norm)
        if state is None:
            begin = [layer.to(kind).expand(q.shape[0], *layer.shape) for layer in weights]
            state = begin, [torch.zeros_like(layer) for layer in begin], 0
        # The error of f(k) = k + scale LN(z) + bias, back to LN's output: scale (v - f(k)) = aim - scale^2 LN(z).
        given = {"q": q, "k": k, "aim": scale * (v - k - bias), "rate": rate, "gain": scale.square(), "factor": factor}
        choices = {"BIAS": 1, "ACTIVATION": TANH_GELU, "RESIDUAL": 1, "INNER": 1}
        widths = (q.shape[-1], *(layer.shape[-1] for layer in weights))
        form = Form(widths, choices, {"epsilon": EPSILON}, len(factor), place=state[2])
        z, last = remember(given, [x.to(kind) for part in state[:2] for x in part], form)
        y = q + F.layer_norm(z, z.shape[-1:], eps=EPSILON) * scale + bias
    place = (state[2] + q.shape[1]) % len(factor)
    return y.to(dtype), (tuple(last[:depth]), tuple(last[depth:]), place)
