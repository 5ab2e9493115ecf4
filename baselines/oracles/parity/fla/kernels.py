"""Every call of our provider `fla` against the reference recurrence: fla's Triton kernels, run by Triton's interpreter.

Here the recurrence is the oracle and the provider is what is judged: layouts, scales, logarithms of gates, the order of
the state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.oracles.parity.comparison import FP16, FP32, Comparison, Draw, Errors, compare
from baselines.oracles.parity.fla import interpreter
from models.ops.scan import scan

PACKAGE = "fla-core"
TIME, HEADS, KEYS, VALUES = 70, 2, 16, 24  # a chunk of 64 and a short one


class Call(NamedTuple):
    """One kernel of fla's and the row of the law that reaches it."""

    model: str
    kernel: str
    forget: str = "none"  # or fixed, head, key channel
    rate: bool = False
    compare: bool = False
    shared: bool = False  # one query and key for all heads
    kind: torch.dtype = torch.float32


CALLS = (
    Call("retnet", "chunk_simple_gla, g_gamma", "fixed"),
    Call("mamba2", "chunk_simple_gla, g", "head", rate=True, shared=True),
    Call("gla", "chunk_gla", "key channel"),
    Call("deltanet", "chunk_gated_delta_rule, g = 0", rate=True, compare=True),
    Call("deltanet", "chunk_delta_rule, float16", rate=True, compare=True, kind=torch.float16),
    Call("gated-deltanet", "chunk_gated_delta_rule", "head", rate=True, compare=True),
)
TOKENS = (
    Call("retnet", "fused_recurrent_simple_gla, g_gamma", "fixed"),
    Call("mamba2", "fused_recurrent_simple_gla, g", "head", rate=True, shared=True),
    Call("gla", "fused_recurrent_gla", "key channel"),
    Call("deltanet", "fused_recurrent_delta_rule", rate=True, compare=True),
    Call("gated-deltanet", "fused_recurrent_gated_delta_rule", "head", rate=True, compare=True),
)


def inputs(call: Call, time: int = TIME, carried: bool = True) -> dict[str, Tensor]:
    """Random inputs of one call; some gates of a key channel are so small that their product underflows."""
    draw, shape = Draw(), (2, time, HEADS)
    keys = draw.unit if call.compare else draw.normal
    given = {name: keys(2, time, 1 if call.shared else HEADS, KEYS) for name in "qk"} | {
        "v": draw.normal(*shape, VALUES)
    }
    if call.forget == "head":
        given["log_forget"] = -draw.gate(*shape)
    elif call.forget == "key channel":
        given["log_forget"] = F.logsigmoid(4 * draw.normal(*shape, KEYS))
    if call.rate:
        given["rate"] = draw.gate(*shape)
    return given | ({"state": draw.normal(2, HEADS, KEYS, VALUES)} if carried else {})


def side(call: Call, provider: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The scan by a provider, its inputs rounded to the call's dtype; the reference recurrence then computes in float32."""

    def computed(q: Tensor, k: Tensor, v: Tensor, **rest: Tensor) -> tuple[Tensor, Tensor]:
        reads = (x.to(call.kind).to(call.kind if provider == "fla" else x.dtype) for x in (q, k, v))
        if call.forget == "fixed":
            rest["log_forget"] = torch.log1p(-(2.0 ** (-5 - torch.arange(HEADS)))).expand(2, q.shape[1], -1)
        y, state = scan(*reads, compare=call.compare, provider=provider, **rest)
        return y.float(), state

    return computed


def over_a_text(call: Call, time: int = TIME, carried: bool = True) -> Errors:
    """Outputs, last state and gradients of a call over `time` tokens."""
    interpreter.prepare()
    return compare(side(call, "fla"), side(call, "recurrence"), inputs(call, time, carried))


@torch.no_grad()
def of_a_token(call: Call, carried: bool = True) -> Errors:
    """Output and state of a call for one token, as in decoding: without a gradient."""
    interpreter.prepare()
    given = inputs(call, 1, carried)
    pairs = zip(side(call, "fla")(**given), side(call, "recurrence")(**given), strict=True)
    return Errors(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max().item(), None)


def _comparison(call: Call, difference: Callable[[Call], Errors], what: str) -> Comparison:
    return Comparison(
        call.model,
        PACKAGE,
        f"provider fla in Triton's interpreter, {what}, against the law: {call.kernel}",
        partial(difference, call),
        FP32 if call.kind == torch.float32 else FP16,
        interpreter.reason,
    )


COMPARISONS = (
    *(_comparison(call, over_a_text, "a text from a state") for call in CALLS),
    *(_comparison(call, of_a_token, "one token") for call in TOKENS),
)
