"""Recurrent cells in plain PyTorch: all products with inputs at once, one product a token, and the backward pass by hand.

    forward    a = W x + b of all tokens; then, token by token, one product R h and a few elementwise operations
    backward   what a gate's slope is a multiple of is computed for all tokens at once; then, from the end, one product
               R^T da and two to six elementwise operations a token. dW, dR and db are products of all tokens again.

Automatic differentiation would keep a dozen nodes a token. torch's own forms take its place where they are the faster
(`fused`). Here the inputs are laid out and a form is chosen: tensors are [t, b, ..] where one head has all units, else
[t, h, b, ..], so that a token is one contiguous slice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.recurrent_cell import fused
from models.ops.recurrent_cell.by_hand.gru import GRU, GRUResetBefore
from models.ops.recurrent_cell.by_hand.janet import Janet
from models.ops.recurrent_cell.by_hand.lstm import LSTM
from models.ops.recurrent_cell.by_hand.slstm import SLSTM
from models.ops.recurrent_cell.cells import CELLS, Inputs, inputs


def chunked(
    x: Tensor,
    weight: Tensor | None,
    recurrent: Tensor,
    *,
    cell: str,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    candidate_bias: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.recurrent_cell.recurrence.recurrence` with a backward pass by hand; same shapes and dtypes."""
    dtype = x.dtype
    with torch.autocast(x.device.type, enabled=False):
        given = inputs(cell, x, weight, recurrent, bias, peephole, candidate_bias, state)
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, given.state.shape[2]), given.state
        if fused.covers(cell, given):
            y, state = fused.run(cell, given)
            return y.to(dtype), state
        heads = len(given.recurrent)
        rows = given.recurrent[0] if heads == 1 else given.recurrent
        y, *others = _run(cell, given, _preactivations(given, cell), rows, _states(given.state, heads))
        y = _joined(y, heads)
        others = [y[-1], *(_joined(other[None], heads)[0] for other in others)]
    return y.transpose(0, 1).to(dtype), torch.stack(others, 1)


def _run(cell: str, given: Inputs, x: Tensor, recurrent: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
    """The outputs [t, ..] and the last of every other state."""
    match cell:
        case "lstm":
            peephole = None if given.peephole is None else _units(given.peephole, len(given.recurrent))
            return LSTM.apply(x, recurrent, peephole, *states)
        case "gru":
            bias = x.new_zeros(given.state.shape[2]) if given.candidate_bias is None else given.candidate_bias
            return (GRU.apply(x, recurrent, _units(bias[None], len(given.recurrent))[0], *states),)
        case "gru-reset-before":
            return (GRUResetBefore.apply(x, recurrent, *states),)
        case "janet":
            return (Janet.apply(x, recurrent, *states),)
    return SLSTM.apply(x, recurrent, *states)


def _preactivations(given: Inputs, cell: str) -> Tensor:
    """W x + b of all tokens, [t, b, g k] or [t, h, b, g k]."""
    x = given.x.transpose(0, 1)
    if given.weight is not None:
        x = F.linear(x, given.weight, given.bias)
    elif given.bias is not None:
        x = x + given.bias
    heads = len(given.recurrent)
    if heads == 1:
        return x.contiguous()
    return x.unflatten(2, (len(CELLS[cell].gates), heads, -1)).permute(0, 3, 1, 2, 4).flatten(3)


def _units(x: Tensor, heads: int) -> Tensor:
    """[n, d] -> [n, d], or [n, h, 1, k], to stand against [b, d] or [h, b, k]."""
    return x if heads == 1 else x.unflatten(1, (heads, 1, -1))


def _states(state: Tensor, heads: int) -> list[Tensor]:
    """[b, s, d] -> s of [b, d] or [h, b, k], contiguous."""
    parts = state.unbind(1)
    if heads > 1:
        parts = [part.unflatten(1, (heads, -1)).transpose(0, 1) for part in parts]
    return [part.contiguous() for part in parts]


def _joined(x: Tensor, heads: int) -> Tensor:
    """[t, b, d], or [t, h, b, k] -> [t, b, d]."""
    return x if heads == 1 else x.transpose(1, 2).flatten(2)
