"""fla's kernel of log-linear attention, called by our provider `fla`, against the law, in Triton's interpreter.

As in `kernels.py` the recurrence is the oracle and the provider is judged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.oracles.parity.comparison import FP32, Comparison, Draw, Errors, compare
from baselines.oracles.parity.fla import interpreter
from baselines.oracles.parity.fla.kernels import HEADS, KEYS, PACKAGE, VALUES
from models.ops.log_linear import log_linear

TIME, LEVELS = 200, 8  # three chunks of 64 and a short one, buckets of up to 64 tokens and one of all that is older
CHUNK = 64


def inputs(time: int = TIME, levels: int = LEVELS, heads: int = 1) -> dict[str, Tensor]:
    """Random inputs; queries and keys of `heads` heads, which is all or one that all share."""
    draw, shape = Draw(), (2, time, HEADS)
    given = {name: draw.normal(2, time, heads, KEYS) for name in "qk"} | {"v": draw.normal(*shape, VALUES)}
    return given | {
        "weights": draw.normal(*shape, levels).exp(),
        "log_forget": -0.2 * draw.gate(*shape),
        "rate": draw.gate(*shape),
    }


def side(provider: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operation by a provider: y and the buckets."""

    def computed(**given: Tensor) -> tuple[Tensor, Tensor]:
        y, (buckets, _) = log_linear(**given, provider=provider)
        return y, buckets

    return computed


def over_a_text(time: int = TIME, levels: int = LEVELS, heads: int = 1) -> Errors:
    """Outputs, last buckets and gradients of a text from its first token on."""
    interpreter.prepare()
    return compare(side("fla"), side("recurrence"), inputs(time, levels, heads))


@torch.no_grad()
def from_a_state(before: int = 3 * CHUNK, time: int = 70, levels: int = LEVELS) -> Errors:
    """Outputs and buckets of a text that goes on after `before` tokens, without a gradient."""
    interpreter.prepare()
    given = inputs(before + time, levels)
    _, state = log_linear(**{name: x[:, :before] for name, x in given.items()}, provider="recurrence")
    rest = {name: x[:, before:] for name, x in given.items()}
    (y, (buckets, count)), (right, (right_buckets, right_count)) = (
        log_linear(**rest, state=state, provider=provider) for provider in ("fla", "recurrence")
    )
    if count != right_count:
        raise ValueError(f"Two sides of a comparison have counted {count} and {right_count} tokens.")
    pairs = (y, right), (buckets, right_buckets)
    return Errors(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max().item(), None)


def _comparison(difference: Callable[[], Errors], what: str) -> Comparison:
    compared = f"provider fla in Triton's interpreter, {what}, against the law: chunk_log_linear_attn"
    return Comparison("log-linear-mamba2", PACKAGE, compared, difference, FP32, interpreter.reason)


COMPARISONS = (_comparison(over_a_text, "a whole text"), _comparison(from_a_state, "a text from a state"))
