"""Additive attention over a recurrence's own states, token by token inside it, or behind it for all tokens at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PIECE = 64  # tokens whose states stand in lists before they join the past
BLOCK = 16  # queries at once where all states are known
KEPT = 256  # tokens up to which training keeps every tanh


class Weights(NamedTuple):
    """Matrices [rows, k] over k units; gates in the order reset, new, candidate."""

    state: Tensor  # U of reset and new, W_a and U_a: all that a state is multiplied with at once, [4 k, k]
    query_bias: Tensor
    context: Tensor | None  # C [3 k, k]
    candidate: Tensor  # U_n
    score: Tensor  # v [k]


def fed(given: Tensor, keys: Tensor, values: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """States, contexts and keys [b, t, k] of tokens whose gates' inputs are `given` [b, t, 3 k], after those that were before.

    The context of a token is what it sees of the states before it, and goes into its gates. `keys`, `values` [b, n, k] are
    those of the text so far, of which the last state is gone on from.
    """
    run = _maybe_twice(_piece, given)
    own: list[tuple[Tensor, Tensor, Tensor]] = []
    for piece in given.split(PIECE, 1):
        states, contexts, new = run(piece, keys, values, *weights)
        own.append((states, contexts, new))
        keys, values = torch.cat([keys, new], 1), torch.cat([values, states], 1)
    return tuple(torch.cat(parts, 1) for parts in zip(*own, strict=True))


def behind(queries: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """What the last t tokens see of the n states up to their own: queries [b, t, k], keys and values [b, n, k] -> [b, t, k]."""
    run, first = _maybe_twice(_block, queries), keys.shape[1] - queries.shape[1]
    ys, stop = [], first
    for block in queries.split(BLOCK, 1):
        stop += block.shape[1]
        ys.append(run(block, keys[:, :stop], values[:, :stop], score))
    return torch.cat(ys, 1)


def _maybe_twice(function: Callable, text: Tensor) -> Callable:
    """The function, of a long text in training computed again in its backward pass instead of kept."""
    if not torch.is_grad_enabled() or text.shape[1] <= KEPT:
        return function
    return lambda *given: checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)


def _piece(
    given: Tensor,
    keys: Tensor,
    values: Tensor,
    state: Tensor,
    query_bias: Tensor,
    context: Tensor,
    candidate: Tensor,
    score: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = len(candidate)
    s = values[:, -1] if values.shape[1] else given.new_zeros(len(given), wide)
    new_keys, states, contexts = [], [], []
    drive = F.linear(s, state)
    for token in given.unbind(1):
        past = [(keys, values)] if keys.shape[1] else []
        past += [(torch.stack(new_keys, 1), torch.stack(states, 1))] if states else []
        c = _seen(drive[:, 2 * wide : 3 * wide] + query_bias, past, score) if past else torch.zeros_like(s)
        gates = token + F.linear(c, context)
        r, z = (gates[:, : 2 * wide] + drive[:, : 2 * wide]).sigmoid().chunk(2, -1)
        n = (gates[:, 2 * wide :] + F.linear(r * s, candidate)).tanh()
        s = torch.lerp(s, n, z)
        drive = F.linear(s, state)
        for kept, value in ((new_keys, drive[:, 3 * wide :]), (states, s), (contexts, c)):
            kept.append(value)
    return torch.stack(states, 1), torch.stack(contexts, 1), torch.stack(new_keys, 1)


def _seen(query: Tensor, past: list[tuple[Tensor, Tensor]], score: Tensor) -> Tensor:
    """One token's context [b, k] over the states of several parts of the past."""
    scores = [(keys + query[:, None]).tanh() @ score for keys, _ in past]
    weights = torch.cat(scores, 1).softmax(-1).split([keys.shape[1] for keys, _ in past], 1)
    return sum((part[:, None] @ values)[:, 0] for part, (_, values) in zip(weights, past, strict=True))


def _block(queries: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    rows, columns = queries.shape[1], keys.shape[1]
    scores = (queries[:, :, None] + keys[:, None]).tanh() @ score
    later = torch.ones(rows, columns, dtype=torch.bool, device=keys.device).triu(columns - rows + 1)
    return scores.masked_fill(later, float("-inf")).softmax(-1) @ values
