"""Test-time training a mini-batch at a time: the dual form of `models.ops.ttt.recurrence.recurrence`.

Every gradient of a mini-batch is taken at its first weights W, and a token's gradient of a layer is the outer product of
that layer's input x_j (with a 1 for the bias) and the error g_j of its output. So the reads need no weights of their own:

    z_i = x_i^T W - p_i sum_{j<=i} r_j (x_i . x_j) g_j        layer by layer, with the queries' x_i (Sun et al., App. A)

Two parts: `Descent` loops over the mini-batches on the keys' side alone, the only part that is sequential; then all
mini-batches are read at once. The loop has a backward pass by hand, because its steps are so small that on a CPU the
bookkeeping of automatic differentiation costs more than their mathematics.

Inside, tensors are laid out mini-batch first: [n, b * h, rows, channels].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.ttt.descent import Descent
from models.ops.ttt.recurrence import EPSILON, Norm, State, Weights, recurrence

GROUP = 16  # mini-batches read at once; more would save no time, and hold more weights than they need


def chunked(
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
    """`models.ops.ttt.recurrence.recurrence` by mini-batches; same shapes. Half precision is computed in float32."""
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, time, heads = q.shape[:3]
    if not time:
        return recurrence(q, k, v, rate=rate, factor=factor, weights=weights, norm=norm, state=state)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, rate, factor = (x.to(kind) for x in (q, k, v, rate, factor))
        scale, bias = (part.to(kind).repeat(batch, 1)[:, None] for part in norm)
        if state is None:
            anchor, place = tuple(layer.to(kind).repeat(batch, 1, 1) for layer in weights), 0
            total = tuple(torch.zeros_like(layer) for layer in anchor)
        else:
            anchor, total = ([x.to(kind).flatten(0, 1) for x in part] for part in state[:2])
            place = state[2]
        ys = []
        for start, stop, at, closes in _sections(place, time, len(factor)):
            rows = min(len(factor), stop - start)
            own = [_by_mini_batch(x[:, start:stop], rows) for x in (q, k, v, rate[..., None])]
            y, anchor, total = _section(*own, factor, at, closes, (scale, bias), anchor, total)
            ys.append(y.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2))
        place = (place + time) % len(factor)
        anchor, total = (tuple(x.unflatten(0, (batch, heads)) for x in part) for part in (anchor, total))
    return torch.cat(ys, 1).to(dtype), (anchor, total, place)


def _sections(place: int, time: int, size: int) -> Iterator[tuple[int, int, int, bool]]:
    """Cut a text into the rest of the open mini-batch, groups of whole ones, and the beginning of the next.

    Yields (start, stop, place of the first token in its mini-batch, whether the last token closes one).
    """
    start = 0
    if place:
        start = min(size - place, time)
        yield 0, start, place, place + start == size
    end = start + (time - start) // size * size
    for first in range(start, end, GROUP * size):
        yield first, min(first + GROUP * size, end), 0, True
    if end < time:
        yield end, time, 0, False


def _by_mini_batch(x: Tensor, rows: int) -> Tensor:
    """[b, n * rows, h, d] -> [n, b * h, rows, d], contiguous."""
    return x.unflatten(1, (-1, rows)).permute(1, 0, 3, 2, 4).flatten(1, 2).contiguous()


def _section(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor, factor: Tensor, place: int, closes: bool, norm: Norm, anchor, total
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """y [n, b * h, rows, d], W and G after a section: n whole mini-batches, or one part of a mini-batch."""
    scale, bias = norm
    rows = k.shape[2]
    part = factor[place : place + rows]
    k1 = F.pad(k, (0, 1), value=1.0)
    aim = scale * (bias - (v - k))  # d loss / d LN's normed input, without its part scale^2 * normed
    walked = Descent.apply(k1, aim, rate * factor[-1], scale.square(), *anchor)
    depth = len(anchor)
    starts, inputs, errors = walked[:depth], (k1, *walked[depth : 2 * depth - 1]), walked[2 * depth - 1 : -depth]
    weight = -(part[:, None] * rate.new_ones(rows, rows).tril()) * rate.mT
    before = total if place else None
    y = q + _read(q, weight, part, starts, inputs, errors, before) * scale + bias
    if rows == len(factor):
        return y, walked[-depth:], total
    total = [layer + ((rate * x)[0].mT @ g[0]) for layer, x, g in zip(total, inputs, errors, strict=True)]
    if closes:
        anchor = [layer - factor[-1] * sum_ for layer, sum_ in zip(anchor, total, strict=True)]
        total = [torch.zeros_like(layer) for layer in total]
    return y, anchor, total


def _read(q: Tensor, weight: Tensor, part: Tensor, starts, inputs, errors, before) -> Tensor:
    """LN(z) of all queries, [n, b * h, rows, d]; `before` is the G that an open mini-batch brought along."""
    shape = q.shape
    x, weight = q.flatten(0, 1), weight.flatten(0, 1)
    for index, (start, given, error) in enumerate(zip(starts, inputs, errors, strict=True)):
        x = F.pad(F.gelu(x, approximate="tanh") if index else x, (0, 1), value=1.0)
        seen = torch.bmm(x, given.flatten(0, 1).mT) * weight
        z = torch.baddbmm(torch.bmm(seen, error.flatten(0, 1)), x, start.flatten(0, 1))
        if before is not None:
            z = z - part[:, None] * (x @ before[index])
        x = z
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON).view(shape)
