"""fla-core's naive functions as oracles for models that compare, erase and write with keys of their own, and for DeltaProduct."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare_forms
from baselines.oracles.parity.fla.naive import HEADS, KEYS, PACKAGE, TIME, VALUES, naive, turned

STEPS = 3  # of DeltaProduct a token


def _inputs(draw: Draw, per_channel: bool = True, units: tuple[str, ...] = ("q", "k")) -> dict[str, Tensor]:
    inputs = {name: draw.unit(2, TIME, HEADS, KEYS) for name in units}
    inputs |= {"v": draw.normal(2, TIME, HEADS, VALUES), "state": draw.normal(2, HEADS, KEYS, VALUES)}
    shape = (2, TIME, HEADS, KEYS) if per_channel else (2, TIME, HEADS)
    return inputs | {"log_forget": torch.nn.functional.logsigmoid(3 * draw.normal(*shape))}


def kimi() -> Errors:
    """Kimi Delta Attention against `naive_recurrent_kda`."""
    oracle, draw = naive("kda", "naive_recurrent_kda"), Draw()
    inputs = _inputs(draw) | {"rate": draw.gate(2, TIME, HEADS)}

    def ours(form: Callable, q, k, v, state, log_forget, rate):
        return form(q * KEYS**-0.5, k, k * rate[..., None], v, log_forget=log_forget, state=state)

    def theirs(q, k, v, state, log_forget, rate):
        return oracle(q, k, v, log_forget, rate, initial_state=state, output_final_state=True)

    return compare_forms("erase and write", ours, theirs, inputs)


def gated_deltanet_2() -> Errors:
    """Gated DeltaNet-2 against `naive_recurrent_gdn2`."""
    oracle, draw = naive("gdn2", "naive_recurrent_gdn2"), Draw()
    inputs = _inputs(draw)
    inputs |= {"erase": draw.gate(2, TIME, HEADS, KEYS), "write": draw.gate(2, TIME, HEADS, VALUES)}

    def ours(form: Callable, q, k, v, state, log_forget, erase, write):
        return form(q * KEYS**-0.5, erase * k, k, write * v, log_forget=log_forget, state=state)

    def theirs(q, k, v, state, log_forget, erase, write):
        return oracle(q, k, v, log_forget, erase, write, initial_state=state, output_final_state=True)

    return compare_forms("erase and write", ours, theirs, inputs)


def comba() -> Errors:
    """Comba against `naive_chunk_comba`, which compares before it forgets (`naive_recurrent_comba` does not)."""
    oracle, draw = naive("comba", "naive_chunk_comba"), Draw()
    inputs = _inputs(draw, per_channel=False) | {"rate": draw.gate(2, TIME, HEADS), "weak": draw.gate(HEADS, 1)}
    # Its ratios are differences of cumulated logarithms, which lose their digits behind a closed gate.
    inputs["log_forget"] = -draw.gate(2, TIME, HEADS)

    def ours(form: Callable, q, k, v, state, log_forget, rate, weak):
        write = k * rate[..., None]
        return form(q * KEYS**-0.5, weak * k, write, v, log_forget=log_forget, before=True, state=state)

    def theirs(q, k, v, state, log_forget, rate, weak):
        return oracle(q, k, v, weak * k, log_forget, rate, initial_state=state, output_final_state=True)

    return compare_forms("erase and write", ours, theirs, inputs)


def goose() -> Errors:
    """RWKV-7 against `dplr_recurrence`, which scales its queries by d^-1/2."""
    oracle, draw = naive("generalized_delta_rule/dplr", "dplr_recurrence"), Draw()
    inputs = _inputs(draw, units=("q", "k", "unit")) | {"rate": draw.gate(2, TIME, HEADS, KEYS)}

    def ours(form: Callable, q, k, unit, v, state, log_forget, rate):
        keys = {"erase": rate * unit, "before": True}
        return form(q * KEYS**-0.5, unit, k, v, log_forget=log_forget, state=state, **keys)

    def theirs(q, k, unit, v, state, log_forget, rate):
        y, state = oracle(*turned(q, k, v, -unit, rate * unit, log_forget), initial_state=state)
        return y.transpose(1, 2), state

    return compare_forms("erase and write", ours, theirs, inputs)


def product(gated: bool) -> Errors:
    """(Gated) DeltaProduct's scan, rows for the steps of a token, against `naive_recurrent_gated_delta_product`."""
    oracle, draw = naive("gated_delta_product", "naive_recurrent_gated_delta_product"), Draw()
    inputs = _inputs(draw, per_channel=False, units=("q",))
    inputs |= {"k": draw.unit(2, STEPS * TIME, HEADS, KEYS), "rate": 2 * draw.gate(2, STEPS * TIME, HEADS)}
    inputs["v"] = draw.normal(2, STEPS * TIME, HEADS, VALUES)
    if not gated:
        inputs.pop("log_forget")

    def ours(form: Callable, q, v, state, k, rate, log_forget=None):
        rows = q.new_zeros(2, TIME, STEPS, HEADS, KEYS)
        rows[:, :, -1] = q * KEYS**-0.5
        forget = None
        if gated:
            forget = log_forget.new_zeros(2, TIME, STEPS, HEADS)
            forget[:, :, 0] = log_forget
            forget = forget.flatten(1, 2)
        y, state = form(rows.flatten(1, 2), k, v, log_forget=forget, rate=rate, compare=True, state=state)
        return y[:, STEPS - 1 :: STEPS], state

    def theirs(q, v, state, k, rate, log_forget=None):
        return oracle(q, k, v, log_forget, rate, KEYS**-0.5, initial_state=state, num_householder=STEPS)

    return compare_forms("scan", ours, theirs, inputs)


COMPARISONS = (
    Comparison("kda", PACKAGE, "law and state: naive_recurrent_kda", kimi),
    Comparison("gated-deltanet-2", PACKAGE, "law and state: naive_recurrent_gdn2", gated_deltanet_2),
    Comparison("comba", PACKAGE, "law and state: naive_chunk_comba", comba),
    Comparison("rwkv7", PACKAGE, "law and state: dplr_recurrence", goose),
    *(
        Comparison(name, PACKAGE, "scan and state: naive_recurrent_gated_delta_product", lambda g=gated: product(g))
        for name, gated in (("deltaproduct", False), ("gated-deltaproduct", True))
    ),
)
