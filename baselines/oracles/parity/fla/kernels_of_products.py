"""fla-core's naive Based and ReBased as oracles of both forms of kernel attention; they scale q and add 1e-6 to the weights."""

from __future__ import annotations

from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare_forms
from baselines.oracles.parity.fla.naive import PACKAGE, naive, turned

TIME, HEADS, FEATURE, VALUES = 150, 3, 8, 16
EPSILON = 1e-6


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
)
