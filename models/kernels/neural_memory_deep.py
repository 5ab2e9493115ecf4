"""The deep neural memory in chunks of one gradient anchor each; exact, without forming any token's own weights.

At the anchor the keys of a chunk run through the network once, and their errors run back:

    a_0 = K,   z_l = a_{l-1} W_l,   a_l = s(z_l);      E_L = theta (V - z_L),   E_{l-1} = (E_l W_l^T) o s'(z_{l-1})

A token's write to layer l is then the rank-one a_{l-1}^T E_l, so every layer is a linear memory with keys a_{l-1} and errors
E_l, and a query passes through its own token's weights layer by layer:

    y_l = A[.,M] h_{l-1} W_l + A[.,S] h_{l-1} S_l + (h_{l-1} a_{l-1}^T o A) E_l,   h_0 = Q,   h_l = s(y_l)

with the table A of `models/kernels/neural_memory.py`. For the residual memory x + LN(f(x)), E_L passes back through the norm.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.neural_memory import Cuts, coefficients, read
from models.neural_memory import ACTIVATIONS, NORM_EPSILON, Rule, State, Weights, suspend


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
    with torch.autocast(q.device.type, enabled=False):
        cuts = Cuts(q, (k, v, momentum, rate, keep), initial, rule.chunk, rule, state)
        table, ends = coefficients(cuts.momentum, cuts.keep, cuts.last)
        layers, after = _walk(cuts, ends, rule)
        rows = table[..., :-1, :] if rule.exclusive else table[..., 1:, :]
        h = cuts.q
        for index, (inputs, errors, starts) in enumerate(layers):
            h = read(ACTIVATIONS[rule.activation](h) if index else h, inputs, errors, starts, rows)
        if rule.residual:
            h = cuts.q + F.layer_norm(h, h.shape[-1:], eps=NORM_EPSILON)
    weights, surprise = (tuple(part.clone() for part in parts) for parts in zip(*after, strict=True))
    end = suspend(weights, surprise, cuts.tokens, rule.chunk)
    return cuts.joined(h).to(q.dtype), end


def _walk(
    cuts: Cuts, ends: Tensor, rule: Rule
) -> tuple[list[tuple[Tensor, Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Over the chunks, per layer: the keys' activations, their errors and [W; S] before each chunk; and the last W and S."""
    states = [torch.cat(pair, -2) for pair in zip(cuts.weights, cuts.surprise, strict=True)]
    widths = [state.shape[-2] // 2 for state in states]
    record: list[tuple[list[Tensor], ...]] = [([], [], []) for _ in states]
    chunks = [x.unbind(2) for x in (cuts.k, cuts.v, cuts.rate, cuts.keep, ends)]
    for k, v, rate, keep, end in zip(*chunks, strict=True):
        weights = tuple(state[..., :width, :] for state, width in zip(states, widths, strict=True))
        inputs, errors = _learn(weights, k, v, rate, keep[..., None] if rule.decayed else None, rule)
        after = []
        for kept, a, e, state in zip(record, inputs, errors, states, strict=True):
            for column, part in zip(kept, (a, e, state), strict=True):
                column.append(part)
            after.append(_written(a, e, state, end))
        states = after
    layers = [tuple(torch.stack(part, 2) for part in parts) for parts in record]
    return layers, [state.split(width, -2) for state, width in zip(states, widths, strict=True)]


def _written(a: Tensor, e: Tensor, state: Tensor, end: Tensor) -> Tensor:
    """[W; S] of one layer after a chunk whose tokens write a^T e; `end` [b, h, 2, size + 2] as `coefficients` gives it."""
    w, s = state.chunk(2, -2)
    g, c, p = (end[..., row, column, None, None] for row, column in ((0, 0), (0, 1), (1, 1)))
    onto = (a.mT.unsqueeze(-3) * end[..., None, 2:]).flatten(-3, -2)
    return torch.cat([torch.addcmul(g * w, c, s), p * s], -2) + onto @ e


def _learn(
    weights: Weights, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None, rule: Rule
) -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's input a_{l-1} and error E_l (the negative gradient of its output, times theta) at the anchor."""
    inputs, slopes = [k], []
    for index, weight in enumerate(weights):
        z = inputs[index] @ weight
        if keep is not None:
            z = z * keep
        if index + 1 < len(weights):
            a, slope = _Activation.apply(z, rule.activation)
            inputs.append(a)
            slopes.append(slope)
    error = _residual_error(z, k, v) if rule.residual else v - z
    errors = [error * rate]
    for weight, slope in zip(weights[:0:-1], slopes[::-1], strict=True):
        error = errors[0] @ weight.mT
        errors.insert(0, error * slope if keep is None else error * slope * keep)
    return inputs, errors


def _residual_error(z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Negative gradient of `1/2 |k + LN(z) - v|^2` with respect to z: LN's backward of `v - k - LN(z)`."""
    centred = z - z.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    n = centred * scale
    up = v - k - n
    return (up - up.mean(-1, keepdim=True) - n * (up * n).mean(-1, keepdim=True)) * scale


class _Activation(torch.autograd.Function):
    """The activation and its slope together, `(s(z), s'(z))`; backward needs s''."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, name: str) -> tuple[Tensor, Tensor]:
        if name == "gelu":
            below = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
            density = torch.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
            slope, bend = below + z * density, density * (2 - z * z)
        else:
            below = torch.sigmoid(z)
            rise = below * (1 - below)
            slope, bend = below + z * rise, rise * (2 + z * (1 - 2 * below))
        ctx.save_for_backward(slope, bend)
        return z * below, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_value: Tensor, d_slope: Tensor) -> tuple[Tensor, None]:
        slope, bend = ctx.saved_tensors
        return d_value * slope + d_slope * bend, None
