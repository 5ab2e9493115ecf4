"""fla-core's exact MesaNet as an oracle for the ridge regression's read: it solves every token's system by itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare_forms
from baselines.oracles.parity.fla.naive import HEADS, KEYS, PACKAGE, TIME, naive


def exact() -> Errors:
    """The read and both states, from those of an earlier text, against `naive_mesa_net_exact`; values are as wide as keys."""
    oracle, draw = naive("mesa_net", "naive_mesa_net_exact"), Draw()
    written = draw.unit(2, 9, HEADS, KEYS)  # so that H is one that a text can leave
    inputs = {name: draw.unit(2, TIME, HEADS, KEYS) for name in "qk"} | {
        "v": draw.normal(2, TIME, HEADS, KEYS),
        "log_forget": -draw.gate(2, TIME, HEADS),
        "rate": draw.gate(2, TIME, HEADS),
        "ridge": 0.25 + draw.gate(HEADS, KEYS),
        "H": (written[..., None] * written[..., None, :]).sum(1),
        "G": draw.normal(2, HEADS, KEYS, KEYS),
    }

    def symmetric(H: Tensor) -> Tensor:
        return (H + H.mT) / 2  # of H only that part means anything, and the two sides read it from either side

    def ours(form: Callable, q, k, v, log_forget, rate, ridge, H, G):
        y, state = form(q, k, v, log_forget=log_forget, rate=rate, ridge=ridge, state=(symmetric(H), G))
        return y, *state

    def theirs(q, k, v, log_forget, rate, ridge, H, G):
        return oracle(q, k, v, log_forget, ridge, rate, symmetric(H), G)

    return compare_forms("ridge read", ours, theirs, inputs)


COMPARISONS = (Comparison("mesanet", PACKAGE, "read and states: naive_mesa_net_exact", exact),)
