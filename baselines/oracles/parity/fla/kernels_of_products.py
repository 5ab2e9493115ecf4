"""fla-core and kernel attention: its naive Based and ReBased as oracles of our forms, and our provider `fla` against the law.

The naive two scale q and add 1e-6 to the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from baselines.oracles.parity.comparison import FP32, Comparison, Draw, Errors, compare, compare_forms
from baselines.oracles.parity.fla import interpreter
from baselines.oracles.parity.fla.naive import PACKAGE, naive, turned
from models.ops.kernel_attention import kernel_attention

TIME, HEADS, FEATURE, VALUES = 150, 3, 8, 16
EPSILON = 1e-6
TOKENS = 5  # in a carried state


def _against(file: str, function: str, kernel: str) -> Errors:
    oracle, draw = naive(file, function), Draw()
    inputs = {name: draw.normal(2, TIME, HEADS, FEATURE) for name in "qk"} | {"v": draw.normal(2, TIME, HEADS, VALUES)}
    if kernel == "square":  # away from a parabola's minimum, where early rows are quotients of tiny numbers
        inputs |= {name: inputs[name] + 1 for name in "qk"}

    def ours(form, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return form(q * FEATURE**-0.5, k, v, kernel=kernel, plus=EPSILON)[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return turned(oracle(*turned(q, k, v)))[0]

    return compare_forms("kernel attention", ours, theirs, inputs)


def inputs(kernel: str, time: int = TIME, carried: bool = True) -> dict[str, Tensor]:
    """Random inputs of our provider: features, or log-features of the exponential kernel, and a state's mean sums."""
    draw = Draw()
    given = {name: draw.normal(2, time, HEADS, FEATURE) for name in "qk"}
    given = {name: x.exp() if kernel == "product" else 3 * x for name, x in given.items()}
    given["v"] = draw.normal(2, time, HEADS, VALUES)
    return given | ({"sums": draw.gate(2, HEADS, FEATURE, VALUES + 1)} if carried else {})


def side(kernel: str, provider: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Kernel attention by a provider: y and the mean sums."""

    def computed(q: Tensor, k: Tensor, v: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = [] if kernel == "product" else [torch.ones(2, HEADS)]
        state = None if sums is None else (sums, *largest, TOKENS)
        plus = EPSILON if kernel == "product" else 0.0
        y, state = kernel_attention(q, k, v, kernel=kernel, plus=plus, state=state, provider=provider)
        return y, state[0]

    return computed


def over_a_text(kernel: str, time: int = TIME, carried: bool = True) -> Errors:
    """Outputs, last sums and gradients of our provider over `time` tokens."""
    interpreter.prepare()
    return compare(side(kernel, "fla"), side(kernel, "recurrence"), inputs(kernel, time, carried))


def _by_provider(model: str, kernel: str, gates: str) -> Comparison:
    compared = f"provider fla in Triton's interpreter, a text from a state, against the law: chunk_simple_gla, {gates}"
    return Comparison(model, PACKAGE, compared, partial(over_a_text, kernel), FP32, interpreter.reason)


COMPARISONS = (
    Comparison(
        "based",
        PACKAGE,
        "Taylor attention: naive_parallel_based",
        lambda: _against("based", "naive_parallel_based", "taylor"),
    ),
    Comparison(
        "rebased",
        PACKAGE,
        "squared attention: naive_parallel_rebased",
        lambda: _against("rebased", "naive_parallel_rebased", "square"),
    ),
    _by_provider("linear-attention", "product", "sums of features"),
    _by_provider("performer", "exponential", "sums under a running maximum"),
)
