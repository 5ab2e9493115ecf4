"""A deep memory whose gradients are taken at one anchor per chunk: what tokens write to its layers, and what queries read.

A token's write to layer l is the rank-one a_{l-1}^T e_l, its layer's input and back-propagated error at the anchor, as in
`models/ops/neural_memory/deep_chunks.py`. Here everything is left to automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.ops.neural_memory.recurrence import ACTIVATIONS


def writes(
    weights: Sequence[Tensor], k: Tensor, error: Callable[[Tensor], Tensor], rule
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs a_0 .. a_{L-1} and errors e_1 .. e_L of keys k [g, n, in]; `error` gives e_L from the last layer's output."""
    inputs, hidden = [k], []
    for weight in weights[:-1]:
        hidden.append(torch.bmm(inputs[-1], weight))
        inputs.append(ACTIVATIONS[rule.activation](hidden[-1]))
    errors = [error(torch.bmm(inputs[-1], weights[-1]))]
    for z, weight in zip(reversed(hidden), reversed(weights[1:]), strict=True):
        errors.append(_times_slope(torch.bmm(errors[-1], weight.mT), z, rule))
    return inputs, errors[::-1]


def _times_slope(x: Tensor, z: Tensor, rule) -> Tensor:
    """`x o s'(z)`, which can be differentiated again: torch's own backward of silu cannot."""
    if rule.activation == "gelu":
        return torch.ops.aten.gelu_backward(x, z)
    below = torch.sigmoid(z)
    return x * (below * (1 + z * (1 - below)))


def read(
    q: Tensor,
    found: Sequence[Sequence[tuple[Tensor, Tensor]]],
    inputs: Sequence[Tensor],
    errors: Sequence[Tensor],
    within: Sequence[Tensor],
    rule,
) -> Tensor:
    """What queries [m, size, in] read from the last layer, m chunks and heads at once.

    Per layer: `found` before the chunk, matrices [m, in, out] each with the share [m, size, 1] that a query finds of it, and
    `within` [m, size, n], the shares of the writes a^T e.
    """
    h = q
    for index, (a, e, shares) in enumerate(zip(inputs, errors, within, strict=True)):
        h = ACTIVATIONS[rule.activation](h) if index else h
        before = sum(share * torch.bmm(h, matrix) for share, matrix in found[index])
        h = torch.baddbmm(before, torch.bmm(h, a.mT) * shares, e)
    return h


def stacked(chunks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Per layer, [m, ...] of all chunks, from the layers of each chunk, [g, ...]."""
    return [torch.stack(one).flatten(0, 1) for one in zip(*chunks, strict=True)]


def by_chunk(x: Tensor, size: int) -> Tensor:
    """A text [b, n * size, h, ...] as [n, b * h, size, ...], contiguous."""
    return x.unflatten(1, (-1, size)).movedim((1, 3), (0, 2)).flatten(1, 2).contiguous()


def as_text(y: Tensor, batch: int) -> Tensor:
    """[n, b * h, size, d] as a text [b, n * size, h, d]."""
    return y.unflatten(1, (batch, -1)).movedim((0, 2), (1, 3)).flatten(1, 2)
