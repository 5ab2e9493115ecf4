"""The deep neural memory in chunks of one gradient anchor each; exact, without forming any token's own weights.

`models/kernels/memory_walk.py` runs the keys of a chunk through the anchored network, and their errors E (times theta) back. A
token's write to layer l is then the rank-one a_{l-1}^T E_l, so every layer is a linear memory with keys a_{l-1} and errors E_l,
and a query passes through its own token's weights layer by layer:

    y_l = A[.,M] h_{l-1} W_l + A[.,S] h_{l-1} S_l + (h_{l-1} a_{l-1}^T o A) E_l,   h_0 = Q,   h_l = s(y_l)

with the table A of `models/kernels/neural_memory.py`, one for all layers or one each. Where every output channel forgets at
its own pace, so does every column of E: the table has a column index too, chunk x chunk x channels numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.memory_table import coefficients
from models.kernels.memory_walk import walk
from models.kernels.neural_memory import Cuts
from models.neural_memory import ACTIVATIONS, NORM_EPSILON, Rule, State, Weights, gates_of_layers, suspend


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    momentum: Tensor,
    rate: Tensor,
    keep: Tensor,
    initial: Weights,
    rule: Rule,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """`models.neural_memory.recurrence` for a memory of any depth, one chunk per gradient anchor; same shapes.

    Half precision is computed in float32, and states stay there.
    """
    outs = [weight.shape[-1] for weight in initial]
    with torch.autocast(q.device.type, enabled=False):
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, rule.chunk, rule, state)
        queries, keys, values, momentum, rate, keep = (
            cuts.blocks(x) for x in (cuts.q, cuts.k, cuts.v, cuts.momentum, cuts.rate, cuts.keep)
        )
        rates, keeps = gates_of_layers(rate, outs), gates_of_layers(keep, outs)
        tables, ends = _tables(momentum, keep, outs)
        writes, mix = zip(
            *(_shares(*pair, cuts.last == cuts.size) for pair in zip(ends, rates, strict=True)), strict=True
        )
        before = tuple(torch.cat(pair, -1).flatten(0, 1) for pair in zip(cuts.weights, cuts.surprise, strict=True))
        inputs, errors, starts, last = walk(keys, values, before, writes, mix, keeps if rule.decayed else None, rule)
        rows = slice(-1) if rule.exclusive else slice(1, None)
        h = queries
        tables = [table[:, :, rows].split([2, cuts.size], 3) for table in tables]
        for index, table in enumerate(tables):
            h = ACTIVATIONS[rule.activation](h) if index else h
            h = _read(h, inputs[index], errors[index] * rates[index], starts[index], *table)
        if rule.residual:
            h = queries + F.layer_norm(h, h.shape[-1:], eps=NORM_EPSILON)
    lead = cuts.k.shape[0], cuts.k.shape[2]
    last = [state.unflatten(0, lead).chunk(2, -1) for state in last]
    weights, surprise = (tuple(part.clone() for part in parts) for parts in zip(*last, strict=True))
    y = h.unflatten(1, lead).movedim((0, 2), (1, 3)).flatten(1, 2)
    return cuts.new(y).to(q.dtype), suspend(weights, surprise, cuts.tokens, rule.chunk)


def _tables(momentum: Tensor, keep: Tensor, outs: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Per layer, the coefficients with a last axis of 1 or of the layer's output channels, and their rows at a chunk's end."""
    if momentum.dim() == keep.dim() == 3:
        table, ends = coefficients(momentum, keep, momentum.shape[-1])
        return [table[..., None]] * len(outs), [ends[..., None]] * len(outs)
    pairs = []
    for eta, gamma in zip(gates_of_layers(momentum, outs), gates_of_layers(keep, outs), strict=True):
        eta, gamma = (x.mT for x in torch.broadcast_tensors(eta, gamma))
        pairs.append([x.movedim(2, -1) for x in coefficients(eta, gamma, eta.shape[-1])])
    tables, ends = zip(*pairs, strict=True)
    return list(tables), list(ends)


def _shares(ends: Tensor, rate: Tensor, closed: bool) -> tuple[Tensor, Tensor]:
    """What each token's error and the old [W | S] have in the new [W | S]: [n, g, size, 2, c] and (g, c, p) [n, g, 3, c].

    A last chunk that is not `closed` leaves the memory at its anchor.
    """
    writes = ends[:, :, :, 2:].transpose(2, 3) * rate.unsqueeze(-2)
    mix = torch.stack([ends[:, :, 0, 0], ends[:, :, 0, 1], ends[:, :, 1, 1]], 2)
    if not closed:
        still = mix.new_tensor([1.0, 0.0, 1.0])[:, None].expand_as(mix[-1:])
        writes, mix = torch.cat([writes[:-1], torch.zeros_like(writes[-1:])]), torch.cat([mix[:-1], still])
    return writes, mix


def _read(h: Tensor, keys: Tensor, errors: Tensor, starts: Tensor, before: Tensor, within: Tensor) -> Tensor:
    """What each row of h gets from its own token's weights in one layer, [n, g, size, out].

    `starts` are [W | S] before the chunk, `before` the table's columns for them, `within` those of the chunk's tokens.
    """
    from_w, from_s = (h @ starts).chunk(2, -1)
    y = torch.addcmul(from_w * before[:, :, :, 0], from_s, before[:, :, :, 1])
    scores = h @ keys.mT
    if within.shape[-1] == 1:
        return y + (scores * within[..., 0]) @ errors
    return y + (scores.unsqueeze(-1) * within * errors.unsqueeze(2)).sum(3)
