"""Large-chunk test-time training by chunks: a few matrix products for every piece of a text that lies in one chunk.

W_0 and W_2 stand side by side, since both read the same keys. What whole chunks read is computed at the end, for all at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.fast_weights.recurrence import State, Weights, first_state, length, orthogonal
from models.ops.fast_weights.steps import Rescaled, Taught

Pair = tuple[Tensor, Tensor]  # W_0 and W_2 side by side [.., d, 2 n], and W_1 [.., n, d]


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    rates: Tensor,
    momentum: Tensor | None,
    weights: Weights,
    chunk: int,
    muon: bool = False,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.ops.fast_weights.recurrence.recurrence` by chunks; same shapes. Half precision is computed in float32."""
    dtype, kind = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, rates = (x.to(kind).transpose(1, 2).contiguous() for x in (q, k, v, rates))
        moves = None if momentum is None else momentum.to(kind).transpose(1, 2)
        weights = tuple(w.to(kind) for w in weights)
        own, before, added, moving, place = first_state(q.transpose(1, 2), weights) if state is None else state
        own, before, added = (_paired(tuple(w.to(kind) for w in group)) for group in (own, before, added))
        lengths, nothing = tuple(length(w) for w in _paired(weights)), tuple(torch.zeros_like(g) for g in added)
        moving, used, zero = moving.to(kind), [], torch.zeros_like(moving, dtype=kind)
        sizes = _sizes(q.shape[2], chunk, place)
        pieces = [x.split(sizes, dim=2) for x in (k, v, rates)] + ([] if moves is None else [moves.split(sizes, dim=2)])
        for key, value, rate, *move in zip(*pieces, strict=True):
            used.append(own)
            gradient = _gradient(key, value, rate, own)
            added = gradient if place % chunk == 0 else tuple(a + g for a, g in zip(added, gradient, strict=True))
            moving, place = moving + move[0].sum(-1) if move else moving, place + key.shape[2]
            if place % chunk == 0:
                share = (moving / chunk)[..., None, None]
                before = tuple(a + share * g for a, g in zip(added, before, strict=True))
                own = tuple(map(Rescaled.apply, _moved(own, before, muon), lengths))
                added, moving = nothing, zero
        y = _read(q.split(sizes, dim=2), used, chunk) if sizes else q
        own, before, added = (_parted(group) for group in (own, before, added))
    return y.transpose(1, 2).to(dtype), (own, before, added, moving, place)


def _sizes(time: int, chunk: int, place: int) -> list[int]:
    """The pieces of a text of `time` tokens that begins at a place: each lies in one chunk."""
    first = min(time, -place % chunk)
    whole, rest = divmod(time - first, chunk)
    return [size for size in (first, *[chunk] * whole, rest) if size]


def _paired(weights: Weights) -> Pair:
    w0, w1, w2 = weights
    return torch.cat([w0, w2], dim=-1), w1


def _parted(pair: Pair) -> Weights:
    w0, w2 = (half.contiguous() for half in pair[0].chunk(2, dim=-1))
    return w0, pair[1], w2


def _gradient(k: Tensor, v: Tensor, rates: Tensor, own: Pair) -> Pair:
    """The sum over c tokens of each one's rate times its gradient of v . f(k)."""
    keys, values = Taught.apply(k @ own[0], v @ own[1].mT, rates)
    return k.mT @ keys, values.mT @ v


def _moved(own: Pair, steps: Pair, muon: bool) -> Pair:
    if muon:
        g0, g1, g2 = (orthogonal(g) for g in _parted(steps))
        steps = _paired((g0, g1, g2))
    return tuple(w + g for w, g in zip(own, steps, strict=True))


def _read(pieces: tuple[Tensor, ...], used: list[Pair], chunk: int) -> Tensor:
    """f of every query [b, h, t, d] with the weights of its piece; whole chunks at once."""
    whole = [i for i, q in enumerate(pieces) if q.shape[2] == chunk]
    if len(whole) < 2:
        return torch.cat([_network(q, own) for q, own in zip(pieces, used, strict=True)], dim=2)
    begin, end = whole[0], whole[-1] + 1  # these lie in a row
    together = _network(torch.stack(pieces[begin:end]), tuple(map(torch.stack, zip(*used[begin:end], strict=True))))
    ys = [_network(q, own) for q, own in zip(pieces[:begin], used[:begin], strict=True)]
    ys.append(together.permute(1, 2, 0, 3, 4).flatten(2, 3))
    ys += [_network(q, own) for q, own in zip(pieces[end:], used[end:], strict=True)]
    return torch.cat(ys, dim=2)


def _network(q: Tensor, own: Pair) -> Tensor:
    gate, linear = (q @ own[0]).chunk(2, dim=-1)
    return (F.silu(gate) * linear) @ own[1]
