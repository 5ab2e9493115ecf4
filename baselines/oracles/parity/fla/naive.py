"""fla-core's naive functions as oracles for the scans: pure PyTorch, loaded by file, so neither Triton nor a GPU is needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, compare_forms, leaves
from baselines.second_generation.hgrn2 import HGRN2Layer
from models.ops.neural_memory.recurrence import Rule

PACKAGE = "fla-core"
TIME, HEADS, KEYS, VALUES = 150, 3, 16, 24  # three chunks of 64, the last one short


def naive(file: str, function: str) -> Callable:
    """A function of `fla/ops/<file>/naive.py`. Raises PackageNotFoundError if fla-core is absent."""
    path = importlib.metadata.distribution(PACKAGE).locate_file(f"fla/ops/{file}/naive.py")
    spec = importlib.util.spec_from_file_location(f"fla_naive_{file}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)


def turned(*tensors: Tensor) -> list[Tensor]:
    """[b, t, h, ...] <-> [b, h, t, ...]."""
    return [x.transpose(1, 2) for x in tensors]


def _reads(draw: Draw, unit: bool = False) -> dict[str, Tensor]:
    keys = draw.unit if unit else draw.normal
    return {
        "q": keys(2, TIME, HEADS, KEYS),
        "k": keys(2, TIME, HEADS, KEYS),
        "v": draw.normal(2, TIME, HEADS, VALUES),
    }


def retention() -> Errors:
    """RetNet's scan against `naive_retention`, which scales q by d^-1/2 and knows its own decays."""
    oracle = naive("retention", "naive_retention")
    decay = torch.log1p(-(2.0 ** (-5 - torch.arange(HEADS)))).expand(2, TIME, -1)

    def ours(form: Callable, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return form(q * KEYS**-0.5, k, v, log_forget=decay)[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return turned(oracle(*turned(q, k, v)))[0]

    return compare_forms("scan", ours, theirs, _reads(Draw()))


def shared_keys() -> Errors:
    """Mamba-2's scan, one key and query for all heads, against `naive_recurrent_simple_gla` with the keys repeated."""
    oracle, draw = naive("simple_gla", "naive_recurrent_simple_gla"), Draw()
    inputs = {
        "q": draw.normal(2, TIME, 1, KEYS),
        "k": draw.normal(2, TIME, 1, KEYS),
        "v": draw.normal(2, TIME, HEADS, VALUES),
        "log_forget": -0.3 * draw.gate(2, TIME, HEADS),
        "rate": draw.gate(2, TIME, HEADS),
    }

    def ours(form: Callable, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor):
        return form(q, k, v, log_forget=log_forget, rate=rate)

    def theirs(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor):
        q, k = (x.expand(-1, -1, HEADS, -1) for x in (q, k))
        return oracle(q, k, v * rate[..., None], log_forget, scale=1.0)

    return compare_forms("scan", ours, theirs, inputs)


def per_channel() -> Errors:
    """GLA's scan, a gate per key channel, against `naive_recurrent_gla`; some gates are so small that e^sum underflows."""
    oracle, draw = naive("gla", "naive_recurrent_gla"), Draw()
    gates = torch.nn.functional.logsigmoid(4 * draw.normal(2, TIME, HEADS, KEYS))
    state = draw.normal(2, HEADS, KEYS, VALUES)
    inputs = {**_reads(draw), "log_forget": gates, "state": state}

    def ours(form: Callable, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor):
        return form(q * KEYS**-0.5, k, v, log_forget=log_forget, state=state)

    def theirs(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, state: Tensor):
        return oracle(q, k, v, log_forget, initial_state=state, output_final_state=True)

    return compare_forms("scan", ours, theirs, inputs)


def rising_bounds() -> Errors:
    """HGRN2's layer under a bound against its equations around `naive_recurrent_gla`, which scales q."""
    oracle, draw, inner = naive("gla", "naive_recurrent_gla"), Draw(), HEADS * KEYS
    layer = HGRN2Layer(inner, HEADS, inner, "auto")
    inputs = {"x": draw.normal(2, TIME, inner), "bound": draw.gate(inner)} | leaves(layer)
    inputs["project.weight"] = draw.normal(3 * inner, inner) / inner**0.5

    def ours(x: Tensor, bound: Tensor, **given: Tensor):
        return functional_call(layer, given, (x, bound, None))

    def theirs(x: Tensor, bound: Tensor, **given: Tensor):
        q, f, v = (x @ given["project.weight"].T).chunk(3, -1)
        g = (bound + (1 - bound) * f.sigmoid()).log()
        parts = (part.unflatten(-1, (HEADS, -1)) for part in (torch.nn.functional.silu(q), 1 - g.exp(), v, g))
        y, state = oracle(*parts, output_final_state=True)
        y = torch.nn.functional.rms_norm(y.flatten(2), (inner,), given["norm.weight"], 1e-5)
        return y @ given["out.weight"].T, state

    return compare(ours, theirs, inputs)


def delta() -> Errors:
    """DeltaNet's scan against `delta_rule_recurrence`."""
    oracle, draw = naive("delta_rule", "delta_rule_recurrence"), Draw()
    inputs = {**_reads(draw, unit=True), "rate": draw.gate(2, TIME, HEADS)}
    inputs["state"] = draw.normal(2, HEADS, KEYS, VALUES)

    def ours(form: Callable, q: Tensor, k: Tensor, v: Tensor, rate: Tensor, state: Tensor):
        return form(q * KEYS**-0.5, k, v, rate=rate, compare=True, state=state)

    def theirs(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, state: Tensor):
        y, state = oracle(*turned(q, k, v, rate), initial_state=state)
        return y.transpose(1, 2), state

    return compare_forms("scan", ours, theirs, inputs)


def gated_delta_inputs() -> dict[str, Tensor]:
    """Inputs of a gated delta rule: unit keys, rates in (0, 1), and a state to begin with."""
    draw = Draw()
    inputs = {**_reads(draw, unit=True), "rate": draw.gate(2, TIME, HEADS)}
    return {**inputs, "log_forget": -draw.gate(2, TIME, HEADS), "state": draw.normal(2, HEADS, KEYS, VALUES)}


def our_gated_delta(form: Callable, q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_forget: Tensor, state: Tensor):
    """Our side of every comparison of a gated delta rule, q scaled as the oracles scale it."""
    return form(q * KEYS**-0.5, k, v, log_forget=log_forget, rate=rate, compare=True, state=state)


def gated_delta(function: str) -> Errors:
    """Gated DeltaNet's scan against fla's naive loop or naive chunks."""
    oracle = naive("gated_delta_rule", function)

    def theirs(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_forget: Tensor, state: Tensor):
        return oracle(q, k, v, beta=rate, g=log_forget, initial_state=state, output_final_state=True)

    return compare_forms("scan", our_gated_delta, theirs, gated_delta_inputs())


def test_time_training() -> Errors:
    """TTT-Linear's weights after every token against `chunk_ttt_linear_ref`, whose rate stands on the row that reads.

    So a token's own rate is one for all here, and since that reference reads z + LN(z), not the paper's q + LN(z), what each
    token has learned is read from our states in its way.
    """
    oracle, draw, time, width, mini_batch = naive("ttt", "chunk_ttt_linear_ref"), Draw(), 48, 16, 16
    inputs = {name: draw.normal(2, time, HEADS, width) for name in "qkv"} | {
        "rate": 0.05 + 0.05 * draw.gate(HEADS),
        "factor": draw.gate(mini_batch),
        "weight": 0.3 * draw.normal(HEADS, width, width),
        "bias": 0.3 * draw.normal(HEADS, 1, width),
        "scale": 1 + 0.3 * draw.normal(HEADS, width),
        "shift": 0.3 * draw.normal(HEADS, width),
    }

    def ours(form, q, k, v, rate, factor, weight, bias, scale, shift):
        fixed = {"factor": factor, "weights": (torch.cat([weight, bias], 1),), "norm": (scale, shift)}
        state, ys = None, []
        for t in range(time):
            token = (x[:, t : t + 1] for x in (q, k, v))
            _, state = form(*token, rate=rate.expand(2, 1, -1), state=state, **fixed)
            (anchor,), (total,), _ = state
            learned = anchor - factor[t % mini_batch] * total
            z = torch.einsum("bhd,bhde->bhe", q[:, t], learned[:, :, :-1]) + learned[:, :, -1]
            ys.append(z + torch.nn.functional.layer_norm(z, (width,), eps=1e-6) * scale + shift)
        return torch.stack(ys, 1), anchor

    def theirs(q, k, v, rate, factor, weight, bias, scale, shift):
        step = (factor.repeat(time // mini_batch)[:, None] * rate).expand(2, -1, -1)[..., None]
        begin = (x.expand(2, -1, -1, -1) for x in (weight, bias))
        # q * 1: the oracle scales its queries in place.
        y, weight, bias = oracle(q * 1.0, k, v, scale, shift, step, 1.0, 1e-6, mini_batch, *begin, True)
        return y, torch.cat([weight, bias], 2)

    return compare_forms("test-time training", ours, theirs, inputs)


def momentum() -> Errors:
    """Titans' linear memory, a gradient per token, against `recurrent_momentum_delta_rule_ref` (whose momentum is -S)."""
    oracle, draw = naive("momentum_delta_rule", "recurrent_momentum_delta_rule_ref"), Draw()
    inputs = _reads(draw, unit=True) | {
        "eta": draw.gate(2, TIME, HEADS),
        "theta": 0.3 * draw.gate(2, TIME, HEADS),
        "keep": 1 - 0.2 * draw.gate(2, TIME, HEADS),
        "initial": draw.normal(HEADS, KEYS, VALUES),
    }

    def ours(form, q, k, v, eta, theta, keep, initial):
        rule = Rule(chunk=1)
        y, state = form(q, k, v, momentum=eta, rate=theta, keep=keep, initial=(initial,), rule=rule)
        return y, state[0][0], state[1][0]

    def theirs(q, k, v, eta, theta, keep, initial):
        begin = initial.expand(2, -1, -1, -1)
        ones = torch.ones_like(theta)
        y, end = oracle(q, k, v, keep.log(), eta.log(), k, ones, theta, 1.0, begin, None, True)
        return y, end[0], -end[1]

    return compare_forms("linear memory", ours, theirs, inputs)


def log_linear() -> Errors:
    """Log-linear Mamba-2's states against `naive_log_linear_attn`, a matrix over all pairs; nine levels tell 150 tokens apart."""
    oracle, draw = naive("log_linear_attn", "naive_log_linear_attn"), Draw()
    inputs = {
        "q": draw.normal(2, TIME, 1, KEYS),
        "k": draw.normal(2, TIME, 1, KEYS),
        "v": draw.normal(2, TIME, HEADS, VALUES),
        "weights": draw.gate(2, TIME, HEADS, 9),
        "log_forget": -0.3 * draw.gate(2, TIME, HEADS),
    }

    def ours(form: Callable, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, log_forget: Tensor) -> Tensor:
        return form(q, k, v, weights, log_forget=log_forget)[0]

    def theirs(q: Tensor, k: Tensor, v: Tensor, weights: Tensor, log_forget: Tensor) -> Tensor:
        return oracle(q, k, v, log_forget, weights)

    return compare_forms("log-linear", ours, theirs, inputs)


COMPARISONS = (
    Comparison("retnet", PACKAGE, "scan: naive_retention", retention),
    Comparison("mamba2", PACKAGE, "scan and state: naive_recurrent_simple_gla", shared_keys),
    Comparison("gla", PACKAGE, "scan and state, a gate per key channel: naive_recurrent_gla", per_channel),
    Comparison("hgrn2", PACKAGE, "layer under a bound and state: naive_recurrent_gla in its equations", rising_bounds),
    Comparison("deltanet", PACKAGE, "scan and state: delta_rule_recurrence", delta),
    Comparison(
        "gated-deltanet",
        PACKAGE,
        "scan and state: naive_recurrent_gated_delta_rule",
        lambda: gated_delta("naive_recurrent_gated_delta_rule"),
    ),
    Comparison(
        "gated-deltanet",
        PACKAGE,
        "scan and state: naive_chunk_gated_delta_rule",
        lambda: gated_delta("naive_chunk_gated_delta_rule"),
    ),
    Comparison(
        "ttt-linear", PACKAGE, "weights after every token, one rate a head: chunk_ttt_linear_ref", test_time_training
    ),
    Comparison("log-linear-mamba2", PACKAGE, "states of all levels: naive_log_linear_attn", log_linear),
    Comparison("titans-lmm", PACKAGE, "linear memory, b = 1, and state: recurrent_momentum_delta_rule_ref", momentum),
)
