"""The deep neural memory in chunks of one gradient anchor each; exact, without forming any token's own weights.

A token's write to layer l is the rank-one a_{l-1}^T e_l, its layer's input and back-propagated error at the anchor; so every
layer is a linear memory with these for keys and errors, and a query passes through its own token's weights layer by layer. The
formulas are in `deep_chunks.py`; the coefficients are those of `gate_table.py`, one table for all
layers or one each. Where every output channel forgets at its own pace, so does every column of e: the table has a column index
too, chunk x chunk x channels numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.neural_memory.chunked_linear import Cuts
from models.ops.neural_memory.deep.deep_chunks import chunk_loop
from models.ops.neural_memory.gate_table import coefficients
from models.ops.neural_memory.linear_blocks import Layout
from models.ops.neural_memory.recurrence import NORM_EPSILON, Rule, State, Weights, gates_of_layers, recurrence, suspend


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
    """`models.ops.neural_memory.recurrence.recurrence` for a memory of any depth, one chunk per gradient anchor; same shapes.

    Half precision is computed in float32, and states stay there.
    """
    if not q.shape[1]:
        return recurrence(q, k, v, momentum=momentum, rate=rate, keep=keep, initial=initial, rule=rule, state=state)
    outs = [weight.shape[-1] for weight in initial]
    with torch.autocast(q.device.type, enabled=False):
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, rule.chunk, rule, state)
        momentum, rate, keep = (cuts.blocks(gate) for gate in (cuts.momentum, cuts.rate, cuts.keep))
        tables, ends = _tables(momentum, keep, rate, outs, cuts.last)
        before = tuple(torch.cat(pair, -1).flatten(0, 1) for pair in zip(cuts.weights, cuts.surprise, strict=True))
        keeps = gates_of_layers(keep, outs) if rule.decayed else None
        layout = Layout(cuts.size, rule.chunk, rule.exclusive)
        y, last = chunk_loop(cuts.q, cuts.k, cuts.v, before, tables, ends, keeps, layout, rule)
        if rule.residual:
            y = cuts.q + F.layer_norm(y, y.shape[-1:], eps=NORM_EPSILON)
    lead = cuts.weights[0].shape[:2]
    last = [state.unflatten(0, lead).chunk(2, -1) for state in last]
    weights, surprise = (tuple(part.clone() for part in parts) for parts in zip(*last, strict=True))
    return cuts.new(y).to(q.dtype), suspend(weights, surprise, cuts.tokens, rule.chunk)


def _tables(
    momentum: Tensor, keep: Tensor, rate: Tensor, outs: list[int], last: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The coefficients with a last axis of 1 or of a layer's output channels: one table for all layers, or one each."""
    if momentum.dim() == keep.dim() == rate.dim() == 3:
        table, ends = coefficients(momentum, keep, last, rate)
        return (table[..., None],), (ends[..., None],)
    pairs = []
    for gates in zip(*(gates_of_layers(gate, outs) for gate in (momentum, keep, rate)), strict=True):
        eta, gamma, theta = (x.mT for x in torch.broadcast_tensors(*gates))
        pairs.append([x.movedim(2, -1) for x in coefficients(eta, gamma, last, theta)])
    tables, ends = zip(*pairs, strict=True)
    return tables, ends
