"""MIRAS' memories in chunks of one gradient anchor each: the law of `retention_recurrence.py` to the last digits.

What a chunk carries on needs one chunk after another; what its tokens read is computed for all chunks at once. The shares of
writes are those of `models/ops/neural_memory/gate_table.py`, without momentum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.associative_memory.anchored import as_text, by_chunk, read, stacked, writes
from models.ops.associative_memory.retention_recurrence import State, Weights, recurrence, resume, suspend
from models.ops.associative_memory.retention_rule import RetentionRule, divisor, error, on_simplex
from models.ops.neural_memory.gate_table import coefficients
from models.ops.neural_memory.recurrence import NORM_EPSILON


def chunked(
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
    """`models.ops.associative_memory.retention_recurrence.recurrence` in chunks; same shapes.

    Half precision is computed in float32, and states stay there.
    """
    given = {"rate": rate, "keep": keep, "threshold": threshold, "initial": initial, "rule": rule, "state": state}
    if not q.numel():
        return recurrence(q, k, v, **given)
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        tokens = tuple(part.to(kind) for part in (k, v, rate, keep, threshold))
        carried, tokens, past = resume(tokens, tuple(w.to(kind) for w in initial), state)
        total = tokens[0].shape[1]
        size = min(total, rule.chunk)
        text = F.pad(q.to(kind), (0, 0, 0, 0, past, 0)), *tokens
        short = -total % size
        chunks = [by_chunk(F.pad(x, (0, 0) * (x.dim() - 2) + (0, short)) if short else x, size) for x in text]
        whole = size == rule.chunk and not short
        y, last = _walk(chunks, [part.flatten(0, 1) for part in carried], whole, rule)
    last = tuple(part.unflatten(0, carried[0].shape[:2]) for part in last)
    return as_text(y, q.shape[0])[:, past:total].to(q.dtype), suspend(last, tokens, rule.chunk)


def _walk(chunks: list[Tensor], carried: list[Tensor], whole: bool, rule: RetentionRule) -> tuple[Tensor, list[Tensor]]:
    """What the queries read, [n, g, size, out], and A at the last anchor, which a chunk that is not `whole` leaves as it was."""
    q, k, v, rate, keep, threshold = chunks
    size, entered = k.shape[2], rule.retention == "kl"
    first = [gate[..., 0, None, None].unbind() for gate in (keep, rate)]
    if entered:  # the first token's step is taken before the shares begin
        lone = torch.zeros(size, dtype=torch.bool, device=k.device)
        lone[0] = True
        keep, rate = keep.masked_fill(lone, 1.0), rate.masked_fill(lone, 0.0)
    table, ends = coefficients(torch.zeros_like(keep), keep, size, rate)
    keys, values, deltas = (x.unbind() for x in (k, v, threshold[..., None]))
    shares, kept = ends[:, :, 0, 2:, None].unbind(), ends[:, :, 0, 0, None, None].unbind()
    norms = [divisor(part, rule) for part in carried]
    starts, inputs, errors, scales, before = [], [], [], [norms], carried
    for n, (key, value, delta) in enumerate(zip(keys, values, deltas, strict=True)):
        before = carried
        if entered:
            carried = _entered(carried, key[:, :1], value[:, :1], delta[:, :1], *(gate[n] for gate in first), rule)
        weights = [a / d for a, d in zip(carried, norms, strict=True)] if rule.retention == "lq" else carried
        a, e = writes(weights, key, lambda z, k=key, v=value, d=delta: error(z, k, v, d, rule), rule)
        starts.append(carried)
        inputs.append(a)
        errors.append(e)
        carried = [torch.baddbmm(kept[n] * part, x.mT, shares[n] * y) for part, x, y in zip(carried, a, e, strict=True)]
        norms = [divisor(part, rule) for part in carried]
        scales.append(norms)
    reads = _scaled(table[:, :, 1:].flatten(0, 1), [torch.stack(one) for one in zip(*scales, strict=True)], rule)
    found = [[(rows[..., :1], start)] for rows, start in zip(reads, stacked(starts), strict=True)]
    y = read(q.flatten(0, 1), found, stacked(inputs), stacked(errors), [rows[..., 2:] for rows in reads], rule)
    y = y.unflatten(0, k.shape[:2])
    if rule.residual:
        y = q + F.layer_norm(y, y.shape[-1:], eps=NORM_EPSILON)
    return y, carried if whole else before


def _entered(
    weights: list[Tensor], k: Tensor, v: Tensor, threshold: Tensor, keep: Tensor, rate: Tensor, rule: RetentionRule
) -> list[Tensor]:
    """The memory after a chunk's first token, k [g, 1, in], which steps in the logarithms."""
    a, e = writes(weights, k, lambda z: error(z, k, v, threshold, rule), rule)
    logs = [part.clamp_min(rule.weight_floor).log() for part in weights]
    return [on_simplex(torch.baddbmm(keep * part, x.mT, rate * y), rule) for part, x, y in zip(logs, a, e, strict=True)]


def _scaled(shares: Tensor, norms: list[Tensor], rule: RetentionRule) -> list[Tensor]:
    """Per layer, the rows [m, size, ...] that tokens read with, divided by the norms [n + 1, g, 1, 1] of their places.

    The last token of a whole chunk reads by the norm that it leaves.
    """
    if rule.retention != "lq":
        return [shares] * len(norms)
    scaled = []
    for norm in norms:
        now, after = (part.flatten(0, 1) for part in (norm[:-1], norm[1:]))
        if shares.shape[1] < rule.chunk:
            scaled.append(shares / now)
        else:
            scaled.append(shares / torch.cat([now.expand(-1, shares.shape[1] - 1, -1), after], 1))
    return scaled
