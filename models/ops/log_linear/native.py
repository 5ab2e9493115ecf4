"""Log-linear attention compiled: `native.c`, called through `chunks.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.log_linear.chunks import Inputs, in_chunks
from models.ops.log_linear.recurrence import State
from models.ops.native_build import expect, kind_of, whole_vectors
from models.ops.scan.native import Law, matrix_state

CHUNK = 64  # tokens of a chunk without a comparison
NARROW, SHORT, LONG = 16, 16, 32  # keys up to NARROW wide are compared in chunks of SHORT tokens, wider ones of LONG


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    *,
    log_forget: Tensor,
    rate: Tensor | None = None,
    compare: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.log_linear.recurrence.recurrence` compiled; same shapes. Half precision is computed in float32.

    Raises NotCovered off the CPU and where no library can be built.
    """
    (batch, time, heads, values), keys, levels, dtype, kind = (
        v.shape,
        q.shape[-1],
        weights.shape[-1],
        v.dtype,
        kind_of(q),
    )
    with torch.autocast("cpu", enabled=False):
        q, k, v, weights, log_forget = (x.to(kind) for x in (q, k, v, weights, log_forget))
        rate = None if rate is None else rate.to(kind)
        buckets, count = (q.new_zeros(batch, heads, levels - 1, keys, values), 0) if state is None else state
        buckets = buckets.to(kind)
        if not v.numel():
            return v.to(dtype), (buckets, count)
        if q.shape[2] != k.shape[2] or q.shape[2] not in (1, heads) or compare:
            q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
        gate = (batch, time, heads)
        expect(q=(q, (batch, time, q.shape[2], keys)), k=(k, q.shape), weights=(weights, (*gate, levels)))
        expect(
            log_forget=(log_forget, gate), rate=(rate, gate), state=(buckets, (batch, heads, levels - 1, keys, values))
        )
        if compare:
            told = _compared(q, k, log_forget, rate, count)
            y, buckets = in_chunks(
                Inputs(None, None, v, weights, None, None, *told, buckets), _compared_at_once(keys), count
            )
        else:
            y, buckets = in_chunks(Inputs(q, k, v, weights, log_forget, rate, None, None, buckets), CHUNK, count)
    return y.to(dtype), (buckets, count + time)


def _compared_at_once(keys: int) -> int:
    """The tokens of a chunk under a comparison."""
    return SHORT if keys <= NARROW else LONG


def _compared(q: Tensor, k: Tensor, log_forget: Tensor, rate: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """What tokens do under a comparison: the table [P | R] [b, n, C, h, w] and the turns [W^T | M] [b, n, h, k, w].

    The matrix state's own law tells it, for it is linear in values and state: each token of a chunk writes a number of its own,
    1 in the column of its place, and the state before the chunk is the identity, in columns behind.
    """
    keys, heads = q.shape[-1], q.shape[2]
    size = _compared_at_once(keys)
    width = whole_vectors(size + keys, q.dtype)
    past = count % size
    ends = past, -(past + q.shape[1]) % size
    q, k = (F.pad(x, (0, 0, 0, 0, *ends)).unflatten(1, (-1, size)) for x in (q, k))
    rate = torch.ones_like(log_forget) if rate is None else rate
    log_forget, rate = (F.pad(x, (0, 0, *ends)).unflatten(1, (-1, size)) for x in (log_forget, rate))
    batch, pieces = q.shape[:2]
    q, k, log_forget, rate = (x.flatten(0, 1) for x in (q, k, log_forget, rate))
    writes = torch.eye(size, width, dtype=q.dtype)[:, None].expand(batch * pieces, size, heads, width)
    before = torch.eye(width, dtype=q.dtype)[size : size + keys].expand(batch * pieces, heads, keys, width)
    table, turns = matrix_state(q, k, k, writes, log_forget, rate, before, Law(1, True, False, True))
    return table.unflatten(0, (batch, pieces)), turns.unflatten(0, (batch, pieces))
