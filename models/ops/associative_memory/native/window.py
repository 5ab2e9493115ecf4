"""The Omega rule compiled: chunks in C, the law of `window_recurrence.py` to the last digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.native.memory import Form, remember
from models.ops.associative_memory.window_recurrence import (
    State,
    Weights,
    WindowRule,
    recurrence,
    resume,
    suspend,
    tokens_of,
)
from models.ops.native_build import kind_of
from models.ops.neural_memory.recurrence import ACTIVATIONS
from models.ops.providers import NotCovered


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    weight: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: WindowRule,
    momentum: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.associative_memory.window_recurrence.recurrence` compiled; same shapes. Half precision in float32.

    Raises NotCovered for an orthogonal step at every token, layers of several hidden widths, off the CPU, and where no library
    can be built.
    """
    dtype, kind = q.dtype, kind_of(q)
    orthogonal = rule.orthogonal is not None
    if (rule.orthogonal == "token" and rule.chunk > 1) or len({part.shape[-1] for part in initial[:-1]}) > 1:
        raise NotCovered(
            "The compiled memory takes an orthogonal step once a chunk and has hidden layers of one width; use provider chunked."
        )
    if not q.numel():
        gates = {"weight": weight, "rate": rate, "keep": keep, "momentum": momentum}
        return recurrence(q, k, v, **gates, initial=initial, rule=rule, state=state)
    with torch.autocast("cpu", enabled=False):
        tokens = tuple(part.to(kind) for part in tokens_of(k, v, weight, rate, keep, momentum, rule))
        first = tuple(part.to(kind) for part in initial)
        weights, surprise, tokens, past = resume(tokens, first, momentum is not None, rule, state)
        given = dict(zip(("k", "aim", "weight", "rate", "keep", "momentum"), tokens, strict=False))
        # A step is its own token's: the window before a text has weights alone.
        given |= {name: given[name][:, rule.window - 1 :] for name in ("rate", "keep", "momentum") if name in given}
        given["q"] = F.pad(q.to(kind), (0, 0, 0, 0, past, 0)) if past else q.to(kind)
        choices = {"ACTIVATION": tuple(ACTIVATIONS).index(rule.activation), "ORTHOGONAL": orthogonal}
        widths = (k.shape[-1], *(part.shape[-1] for part in initial))
        y, last = remember(given, (*weights, *surprise), Form(widths, choices, {}, rule.chunk, rule.window))
    weights, surprise = tuple(last[: len(initial)]), tuple(last[len(initial) :])
    return y[:, past:].to(dtype), suspend(weights, surprise, tokens, rule)
