"""fla's kernels of the generalised delta rule, called by our provider `fla`, against the law of erasing and writing.

As in `kernels.py` the recurrence is the oracle and the provider is judged, in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.oracles.parity.comparison import FP32, Comparison, Draw, Errors, compare
from baselines.oracles.parity.fla import interpreter
from baselines.oracles.parity.fla.kernels import HEADS, KEYS, PACKAGE, TIME, VALUES
from models.ops.erase_and_write import erase_and_write


class Row(NamedTuple):
    """One model's row of the law."""

    model: str
    before: bool = False  # compares before it forgets
    per_channel: bool = True  # forgets per key channel, else per head
    erases_apart: bool = False  # with another key than it writes


ROWS = (
    Row("kda"),
    Row("gated-deltanet-2"),
    Row("comba", before=True, per_channel=False),
    Row("rwkv7", before=True, erases_apart=True),
)


def inputs(row: Row, time: int = TIME, carried: bool = True) -> dict[str, Tensor]:
    """Random inputs of one row; some gates of a key channel are so small that their product underflows.

    What erases is at most the key that is compared: else the state grows without bound.
    """
    draw, shape = Draw(), (2, time, HEADS)
    unit, rate = draw.unit(*shape, KEYS), draw.gate(*shape)[..., None]
    given = {"q": draw.unit(*shape, KEYS), "compare": unit, "write": rate * unit, "v": draw.normal(*shape, VALUES)}
    if row.model == "gated-deltanet-2":
        given |= {"compare": draw.gate(*shape, KEYS) * unit, "write": unit}
    if row.erases_apart:
        given |= {"erase": draw.gate(*shape, KEYS) * unit, "write": draw.unit(*shape, KEYS)}
    gates = (*shape, KEYS) if row.per_channel else shape
    given["log_forget"] = F.logsigmoid(3 * draw.normal(*gates))
    return given | ({"state": draw.normal(2, HEADS, KEYS, VALUES)} if carried else {})


def side(row: Row, provider: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operation by a provider."""
    return partial(erase_and_write, before=row.before, provider=provider)


def over_a_text(row: Row, time: int = TIME, carried: bool = True) -> Errors:
    """Outputs, last state and gradients over `time` tokens."""
    interpreter.prepare()
    return compare(side(row, "fla"), side(row, "recurrence"), inputs(row, time, carried))


@torch.no_grad()
def of_a_token(row: Row, carried: bool = True) -> Errors:
    """Output and state for one token, as in decoding: without a gradient."""
    interpreter.prepare()
    given = inputs(row, 1, carried)
    pairs = zip(side(row, "fla")(**given), side(row, "recurrence")(**given), strict=True)
    return Errors(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max().item(), None)


def _comparison(row: Row, difference: Callable[[Row], Errors], what: str) -> Comparison:
    compared = f"provider fla in Triton's interpreter, {what}"
    return Comparison(row.model, PACKAGE, compared, partial(difference, row), FP32, interpreter.reason)


COMPARISONS = (
    *(_comparison(row, over_a_text, "a text from a state, against the law: chunk_dplr_delta_rule") for row in ROWS),
    *(_comparison(row, of_a_token, "one token, against the law: fused_recurrent_dplr_delta_rule") for row in ROWS),
)
