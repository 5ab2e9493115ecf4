"""The table of recurrent cells, and what their forms do with what they are given: one dtype, a state to begin with."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Cell(NamedTuple):
    """What a cell computes from a token and from its last output, in the order of the weights' rows, and what it carries."""

    gates: tuple[str, ...]
    states: tuple[str, ...]


CELLS: dict[str, Cell] = {
    "lstm": Cell(("input", "forget", "candidate", "output"), ("h", "c")),
    "gru": Cell(("reset", "update", "candidate"), ("h",)),
    "gru-reset-before": Cell(("reset", "update", "candidate"), ("h",)),
    "janet": Cell(("forget", "candidate"), ("h",)),
    "slstm": Cell(("input", "forget", "candidate", "output"), ("h", "c", "n", "m")),
}


class Inputs(NamedTuple):
    """A cell's inputs in one dtype, with a state that is there."""

    x: Tensor
    weight: Tensor | None
    recurrent: Tensor
    bias: Tensor | None
    peephole: Tensor | None
    candidate_bias: Tensor | None
    state: Tensor


def inputs(
    cell: str,
    x: Tensor,
    weight: Tensor | None,
    recurrent: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    candidate_bias: Tensor | None,
    state: Tensor | None,
) -> Inputs:
    """All in float64 where x is, else in float32. Raises ValueError for an unknown cell, or a part that it does not have."""
    if cell not in CELLS:
        raise ValueError(f"There is no recurrent cell '{cell}'; choose from: {', '.join(CELLS)}.")
    if peephole is not None and cell != "lstm":
        raise ValueError(f"Only the LSTM has peepholes, not '{cell}'; leave them out.")
    if candidate_bias is not None and cell != "gru":
        raise ValueError(f"Only 'gru' has a bias inside its reset gate, not '{cell}'; leave it out.")
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    given = (x, weight, recurrent, bias, peephole, candidate_bias, state)
    x, weight, recurrent, bias, peephole, candidate_bias, state = (
        None if one is None else one.to(kind) for one in given
    )
    if state is None:
        state = first_state(cell, len(x), recurrent)
    return Inputs(x, weight, recurrent, bias, peephole, candidate_bias, state)


def first_state(cell: str, batch: int, recurrent: Tensor) -> Tensor:
    """[b, s, d]: zeros; the sLSTM's running maximum is that of no numbers, -inf."""
    names = CELLS[cell].states
    state = recurrent.new_zeros(batch, len(names), recurrent.shape[0] * recurrent.shape[2])
    if "m" in names:
        state[:, names.index("m")] = -math.inf
    return state
