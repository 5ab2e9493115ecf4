"""The matrix-state law by flash-linear-attention's Triton kernels (package fla-core, https://github.com/fla-org).

    compare   log_forget        a text                                       one token, no gradient
    no        none or per head  chunk_simple_gla (g; g_gamma where fixed)    fused_recurrent_simple_gla
    no        per key channel   chunk_gla                                    fused_recurrent_gla
    yes       none              chunk_delta_rule, in float32 as below, g = 0 fused_recurrent_delta_rule
    yes       per head          chunk_gated_delta_rule                       fused_recurrent_gated_delta_rule

chunk_delta_rule refuses float32; chunk_gated_delta_rule, which takes it, computes the same recurrence where nothing is forgotten.
Layouts are ours: [b, t, h, d], states [b, h, k, v]. Gates, rates and states go in as float32, q, k and v in the dtype of
autocast or in the widest of their own. In float32 a kernel multiplies as Triton does by default, which is TF32 on Nvidia.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.ops.fla_inputs import working_dtype
from models.ops.providers import NotCovered, require

WIDEST_DELTA_KEY = 256  # of a head, in fla's kernels of the delta rules


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
    """`models.ops.scan.recurrence.recurrence` by fla's kernels; same shapes. y comes back in q's dtype, the state in float32.

    Raises NotCovered for the delta rule with forgetting per key channel or keys wider than 256, for float64, and for tensors
    that Triton cannot reach.
    """
    require("fla", q)
    per_channel = log_forget is not None and log_forget.dim() == 4
    if compare and (per_channel or q.shape[-1] > WIDEST_DELTA_KEY):
        raise NotCovered("Provider 'fla' has the delta rule for gates per head and keys of at most 256; use chunked.")
    dtype, kind, heads = q.dtype, working_dtype(q, k, v), v.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        if rate is not None and not compare:
            v, rate = v.float() * rate.float()[..., None], None  # only a scale of what is written
        q, k, v = (x.to(kind).expand(-1, -1, heads, -1) for x in (q, k, v))
        token = q.shape[1] == 1 and not torch.is_grad_enabled()
        if compare:
            rate = v.new_ones(v.shape[:3]) if rate is None else rate
            kernel = _delta(log_forget, rate.float(), token, kind)
        else:
            kernel = _hebbian(log_forget, per_channel, token)
        state = None if state is None else state.float()
        y, state = kernel(q, k, v, scale=1.0, initial_state=state, output_final_state=True)
    return y.to(dtype), state


def _hebbian(log_forget: Tensor | None, per_channel: bool, token: bool) -> Callable:
    if per_channel:
        from fla.ops.gla import chunk_gla, fused_recurrent_gla

        gate = log_forget.float()
        return partial(fused_recurrent_gla, gk=gate) if token else partial(chunk_gla, g=gate)
    from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla

    form = fused_recurrent_simple_gla if token else chunk_simple_gla
    if log_forget is None:
        return form
    if log_forget.stride()[:2] == (0, 0) and not log_forget.requires_grad:  # RetNet's: the same at every token
        return partial(form, g_gamma=log_forget[0, 0].float())
    return partial(form, g=log_forget.float())


def _delta(log_forget: Tensor | None, rate: Tensor, token: bool, kind: torch.dtype) -> Callable:
    if log_forget is None and (token or kind != torch.float32):
        from fla.ops.delta_rule import chunk_delta_rule, fused_recurrent_delta_rule

        return partial(fused_recurrent_delta_rule if token else chunk_delta_rule, beta=rate)
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

    gate = torch.zeros_like(rate) if log_forget is None else log_forget.float()
    return partial(fused_recurrent_gated_delta_rule if token else chunk_gated_delta_rule, g=gate, beta=rate)
