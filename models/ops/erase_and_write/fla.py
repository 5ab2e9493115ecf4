"""The delta rule with keys of its own, by flash-linear-attention's kernels of the generalised delta rule (package fla-core).

    a text                   one token, no gradient
    chunk_dplr_delta_rule    fused_recurrent_dplr_delta_rule

They compute S <- diag(exp g) S + b (a^T S) + k v^T, so with the letters of `recurrence.py` b = -x, k = w, and a = p where
one compares before forgetting, exp(g) p after it. One kernel serves Kimi Delta Attention, Gated DeltaNet-2, Comba and RWKV-7:
fla's own of the first two take one key and rates, which cannot be told from three keys.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from models.ops.fla_inputs import working_dtype
from models.ops.providers import NotCovered, interpreted, require

WIDEST_KEY = 256  # of a head, in these kernels


def erase_and_write(
    q: Tensor,
    compare: Tensor,
    write: Tensor,
    v: Tensor,
    *,
    log_forget: Tensor,
    erase: Tensor | None = None,
    before: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`recurrence.recurrence` by fla's kernels; same shapes. y comes back in q's dtype, the state in float32.

    Raises NotCovered for keys wider than 256, for float64, for a text in float32 on a GPU, which fla says does not run on all of
    them, and for tensors that Triton cannot reach.
    """
    require("fla", q)
    if q.shape[-1] > WIDEST_KEY:
        raise NotCovered(f"Provider 'fla' erases and writes with keys of at most {WIDEST_KEY}; use chunked.")
    from fla.ops.generalized_delta_rule.dplr import chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule

    dtype, kind = q.dtype, working_dtype(q, compare, write, v)
    is_token = q.shape[1] == 1 and not torch.is_grad_enabled()
    if kind == torch.float32 and not is_token and not interpreted():
        raise NotCovered(
            "Provider 'fla' erases and writes over a text in half precision only; use bfloat16, or chunked."
        )
    with torch.autocast(q.device.type, enabled=False), warnings.catch_warnings():
        gate = (log_forget if log_forget.dim() == 4 else log_forget[..., None].expand(q.shape)).float()
        seen = compare if before else compare * gate.exp()
        erased = -(write if erase is None else erase)
        reads = (x.to(kind).contiguous() for x in (q, write, v, seen, erased))
        warnings.filterwarnings("ignore", message=".*does not support float32", category=RuntimeWarning)  # interpreted
        kernel = fused_recurrent_dplr_delta_rule if is_token else chunk_dplr_delta_rule
        state = None if state is None else state.float().contiguous()
        y, state = kernel(*reads, gk=gate.contiguous(), scale=1.0, initial_state=state, output_final_state=True)
    return y.to(dtype), state
