"""torch's own LSTM and GRU as oracles for both forms of our recurrent cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from baselines.oracles.parity.comparison import FP64, Comparison, Draw, Errors, compare_forms, leaves

PACKAGE = "torch"
WIDTH, UNITS, TIME = 24, 32, 70


def lstm() -> Errors:
    """Outputs and both states against nn.LSTM, from a state."""

    def ours(form: Callable, x: Tensor, h: Tensor, c: Tensor, **given: Tensor):
        bias = given["bias_ih_l0"] + given["bias_hh_l0"]
        weights = given["weight_ih_l0"], given["weight_hh_l0"][None]
        y, state = form(x, *weights, cell="lstm", bias=bias, state=torch.stack([h, c], 1))
        return y, state[:, 0], state[:, 1]

    theirs = nn.LSTM(WIDTH, UNITS, batch_first=True, dtype=torch.float64)

    def their_side(x: Tensor, h: Tensor, c: Tensor, **given: Tensor):
        y, (h, c) = functional_call(theirs, given, (x, (h[None], c[None])))
        return y, h[0], c[0]

    return compare_forms("recurrent cell", ours, their_side, _inputs(theirs, "h", "c"))


def gru() -> Errors:
    """Outputs and state against nn.GRU, from a state; the second bias is told apart in the candidate alone."""

    def ours(form: Callable, x: Tensor, h: Tensor, **given: Tensor):
        first, second = given["bias_ih_l0"], given["bias_hh_l0"]
        gates = first[: 2 * UNITS] + second[: 2 * UNITS]
        bias, inner = torch.cat([gates, first[2 * UNITS :]]), second[2 * UNITS :]
        weights = given["weight_ih_l0"], given["weight_hh_l0"][None]
        y, state = form(x, *weights, cell="gru", bias=bias, candidate_bias=inner, state=h[:, None])
        return y, state[:, 0]

    theirs = nn.GRU(WIDTH, UNITS, batch_first=True, dtype=torch.float64)

    def their_side(x: Tensor, h: Tensor, **given: Tensor):
        y, h = functional_call(theirs, given, (x, h[None]))
        return y, h[0]

    return compare_forms("recurrent cell", ours, their_side, _inputs(theirs, "h"))


def _inputs(theirs: nn.Module, *states: str) -> dict[str, Tensor]:
    draw = Draw()
    given = {"x": draw.normal(2, TIME, WIDTH)} | {name: draw.normal(2, UNITS) for name in states}
    return {name: x.double() for name, x in given.items()} | leaves(theirs)


COMPARISONS = (
    Comparison("lstm", PACKAGE, "cell and states: nn.LSTM, float64", lstm, FP64),
    Comparison("gru", PACKAGE, "cell and state: nn.GRU, float64", gru, FP64),
)
