"""MIRAS' memories compiled: chunks in C, the law of `retention_recurrence.py` to the last digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.native.memory import Form, remember
from models.ops.associative_memory.retention_recurrence import State, Weights, recurrence, resume, suspend
from models.ops.associative_memory.retention_rule import LOSSES, RetentionRule
from models.ops.native_build import kind_of
from models.ops.neural_memory.recurrence import ACTIVATIONS, NORM_EPSILON
from models.ops.providers import NotCovered


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rate: Tensor,
    keep: Tensor,
    threshold: Tensor,
    initial: Weights,
    rule: RetentionRule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.associative_memory.retention_recurrence.recurrence` compiled; same shapes. Half precision in float32.

    Raises NotCovered for layers of several hidden widths, off the CPU, and where no library can be built.
    """
    dtype, kind = q.dtype, kind_of(q)
    if len({weight.shape[-1] for weight in initial[:-1]}) > 1:
        raise NotCovered("The compiled memory has hidden layers of one width; use provider chunked.")
    if not q.numel():
        given = {"rate": rate, "keep": keep, "threshold": threshold, "initial": initial, "rule": rule, "state": state}
        return recurrence(q, k, v, **given)
    with torch.autocast("cpu", enabled=False):
        tokens = tuple(part.to(kind) for part in (k, v, rate, keep, threshold))
        carried, tokens, past = resume(tokens, tuple(w.to(kind) for w in initial), state)
        q = q.to(kind)
        queries = F.pad(q, (0, 0, 0, 0, past, 0)) if past else q
        keys, values, *gates, delta = tokens
        given = {"q": queries, "k": keys, "aim": values - keys if rule.residual else values}
        given |= {"rate": gates[0], "keep": gates[1], "threshold": delta if rule.loss == "huber" else None}
        y, last = remember(given, carried, _form(rule, (k.shape[-1], *(w.shape[-1] for w in initial))))
        y = y[:, past:]
        if rule.residual:
            y = q + F.layer_norm(y, y.shape[-1:], eps=NORM_EPSILON)
    return y.to(dtype), suspend(tuple(last), tokens, rule.chunk)


def _form(rule: RetentionRule, widths: tuple[int, ...]) -> Form:
    loss = LOSSES.index(rule.loss) + (rule.loss == "huber" and rule.per_channel)
    choices = {"ACTIVATION": tuple(ACTIVATIONS).index(rule.activation), "RESIDUAL": rule.residual, "LOSS": loss}
    choices |= {"SCALED": rule.retention == "lq", "SIMPLEX": rule.retention == "kl"}
    law = {"epsilon": NORM_EPSILON, "power": rule.power, "sharpness": rule.sharpness or 0.0, "norm": rule.norm}
    law |= {"norm_floor": rule.norm_floor, "weight_floor": rule.weight_floor, "mass": rule.mass or 0.0}
    return Form(widths, choices, law, rule.chunk)
