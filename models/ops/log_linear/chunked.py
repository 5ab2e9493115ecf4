"""Log-linear attention in chunks that start at multiples of C tokens of the text: products inside, a counter of states between.

Inside a chunk of C = 2^n tokens the level of token s at t depends on both places alone: the number of digits of t xor s. All
older buckets are read through the chunk's R, each with its level's weight, and a chunk's own writes enter the counter as one
number at digit n. A text that begins or ends inside a chunk is cut there; the buckets of such a piece are met one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.log_linear.chunk_parts import Parts, parts
from models.ops.log_linear.recurrence import State, recurrence

CHUNK = 64  # a power of two
STEPS = 2  # so few tokens are faster one by one
Buckets = dict[int, Tensor]  # those that are not empty [m, k, v], by digit


def chunked(
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
    """`models.ops.log_linear.recurrence.recurrence` in chunks; same shapes. Half precision is computed in float32."""
    (batch, time, heads, values), top, dtype = v.shape, weights.shape[-1] - 2, v.dtype
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        given = [None if x is None else x.to(kind) for x in (q, k, v, weights, log_forget, rate)]
        if state is None:
            state = given[0].new_zeros(batch, heads, top + 1, q.shape[-1], values), 0
        buckets, count = state[0].to(kind), state[1]
        if time <= STEPS:
            q, k, v, weights, log_forget, rate = given
            y, state = recurrence(
                q, k, v, weights, log_forget=log_forget, rate=rate, compare=compare, state=(buckets, count)
            )
            return y.to(dtype), state
        given[:2] = (x.expand(-1, -1, heads, -1) for x in given[:2])
        full = {j: buckets[:, :, j].flatten(0, 1) for j in range(top + 1) if _is_full(j, count, top)}
        ys, start = [], 0
        for size, length in _cut(count, time):
            rows = [None if x is None else _rows(x[:, start : start + length], size) for x in given]
            step = _chunks if size == CHUNK else _piece
            y, full = step(rows, compare, full, count + start, top)
            ys.append(y.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2))
            start += length
        empty = torch.zeros_like(buckets[:, :, 0].flatten(0, 1))
        buckets = torch.stack([full.get(j, empty) for j in range(top + 1)], 1).unflatten(0, (batch, heads))
    return torch.cat(ys, 1).to(dtype), (buckets, count + time)


def _cut(count: int, time: int) -> list[tuple[int, int]]:
    """Size of the chunks, and how many tokens of them: up to the next whole chunk, the whole ones, and the rest."""
    head = min(time, -count % CHUNK)
    whole, tail = divmod(time - head, CHUNK)
    return [(s, n) for s, n in ((head, head), (CHUNK, whole * CHUNK), (tail, tail)) if n]


def _rows(x: Tensor, size: int) -> Tensor:
    """[b, n * size, h, ..] -> [n, b * h, size, ..]."""
    x = x.unflatten(1, (-1, size)).transpose(0, 1)  # [n, b, size, h, ..]
    return x.transpose(2, 3).flatten(1, 2)


def _is_full(j: int, count: int, top: int) -> bool:
    return bool(count >> j & 1) if j < top else count >> top > 0


def _levels(one: Tensor, other: Tensor, top: int) -> Tensor:
    """At which level a token at one place sees another's: the number of digits of their difference."""
    apart = (one ^ other)[..., None] >> torch.arange(top + 1, device=one.device)
    return (apart > 0).sum(-1)


def _inside(found: Parts, v: Tensor, weights: Tensor, start: int, top: int) -> Tensor:
    places = torch.arange(start, start + v.shape[-2], device=v.device)
    levels = _levels(places[:, None], places, top)
    return (found.inside * weights.gather(-1, levels.expand_as(found.inside))) @ v


def _chunks(rows: list, compare: bool, full: Buckets, start: int, top: int) -> tuple[Tensor, Buckets]:
    """Whole chunks [n, m, C, ..] from a multiple of C on: y [n, m, C, v] and the buckets behind them."""
    q, k, v, weights, log_forget, rate = rows
    found = parts(q, k, log_forget, rate, compare)
    y, writes = _inside(found, v, weights, 0, top), found.enter @ v
    met: dict[int, list[tuple[int, Tensor]]] = {}
    for i in range(len(v)):
        for j, states in full.items():
            met.setdefault(j, []).append((i, states))
        full = {j: found.kept(states, i) for j, states in full.items()}
        end = start + (i + 1) * CHUNK
        place = min((end & -end).bit_length() - 1, top)
        merged = sum((full.pop(j) for j in sorted(full) if j <= place), writes[i])
        full[place] = merged
    for j, pairs in met.items():
        chosen = torch.tensor([i for i, _ in pairs], device=v.device)
        read = found.reach[chosen] @ torch.stack([states for _, states in pairs])
        y = y.index_add(0, chosen, read * weights[chosen][..., j + 1, None])
    return y, full


def _piece(rows: list, compare: bool, full: Buckets, start: int, top: int) -> tuple[Tensor, Buckets]:
    """A piece of one chunk [1, m, size, ..]."""
    q, k, v, weights, log_forget, rate = (None if x is None else x[0] for x in rows)
    found, size = parts(q, k, log_forget, rate, compare), v.shape[1]
    y = _inside(found, v, weights, start, top)
    places = torch.arange(start, start + size, device=v.device)
    for j, states in full.items():
        levels = (
            _levels(places, torch.tensor(_begin(start, j, top)), top) if j < top else torch.full_like(places, top + 1)
        )
        y = y + (found.reach @ states) * weights.gather(-1, levels[:, None].expand(len(v), -1, 1))
    after: Buckets = {}
    for j in range(top + 1):
        if not _is_full(j, start + size, top):
            continue
        first = _begin(start + size, j, top)
        last = first + (1 << j) if j < top else (start + size) >> top << top
        old = [states for i, states in full.items() if first <= _begin(start, i, top) < last]
        new = slice(max(first - start, 0), max(last - start, 0))
        after[j] = sum((found.kept(states) for states in old), found.enter[..., new] @ v[:, new])
    return y[None], after


def _begin(count: int, j: int, top: int) -> int:
    """The place of the first token in bucket j after `count` tokens."""
    return count >> (j + 1) << (j + 1) if j < top else 0
