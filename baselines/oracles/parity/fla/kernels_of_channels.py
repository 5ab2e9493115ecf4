"""fla's kernels of HGRN, called by our provider `fla`, against the law of the diagonal recurrence, in Triton's interpreter.

As in `kernels.py` the recurrence is the oracle and the provider is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.oracles.parity.comparison import FP32, Comparison, Draw, Errors, compare
from baselines.oracles.parity.fla import interpreter
from baselines.oracles.parity.fla.kernels import PACKAGE
from models.ops.diagonal_scan import diagonal_scan

TIME, NUMBERS = 150, 20  # a chunk of 128 and a short one


class Row(NamedTuple):
    """One model's row of the law."""

    model: str
    shared: bool = False  # one decay for all tokens


ROWS = (Row("mingru"), Row("rwkv4", shared=True))


def inputs(row: Row, time: int = TIME, carried: bool = True) -> dict[str, Tensor]:
    """Random inputs of one row; some decays are exactly 0 or 1, and some so small that their products underflow."""
    draw = Draw()
    a = draw.gate(*([NUMBERS] if row.shared else [2, time, NUMBERS]))
    a[..., 0], a[..., 1], a[..., 2] = 0, 1, 1e-30
    given = {"a": a, "x": draw.normal(2, time, NUMBERS)}
    return given | ({"state": draw.normal(2, NUMBERS)} if carried else {})


def side(provider: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operation by a provider."""
    return partial(diagonal_scan, provider=provider)


def over_a_text(row: Row, time: int = TIME, carried: bool = True) -> Errors:
    """Outputs, last state and gradients over `time` tokens."""
    interpreter.prepare()
    return compare(side("fla"), side("recurrence"), inputs(row, time, carried))


@torch.no_grad()
def of_a_token(row: Row, carried: bool = True) -> Errors:
    """Output and state for one token, as in decoding: without a gradient."""
    interpreter.prepare()
    given = inputs(row, 1, carried)
    pairs = zip(side("fla")(**given), side("recurrence")(**given), strict=True)
    return Errors(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max().item(), None)


def _comparison(row: Row, difference: Callable[[Row], Errors], what: str) -> Comparison:
    compared = f"provider fla in Triton's interpreter, {what}"
    return Comparison(row.model, PACKAGE, compared, partial(difference, row), FP32, interpreter.reason)


COMPARISONS = (
    *(_comparison(row, over_a_text, "a text from a state, against the law: chunk_hgrn, forward twice") for row in ROWS),
    *(_comparison(row, of_a_token, "one token, against the law: fused_recurrent_hgrn") for row in ROWS),
)
