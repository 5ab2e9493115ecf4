"""The real diagonal recurrence by flash-linear-attention's kernels of HGRN (package fla-core), in float32.

    chunk_hgrn             h_t = exp(g_t) h_{t-1} + x_t over a text, in chunks of 128 tokens
    fused_recurrent_hgrn   the same token by token, for texts no longer than a chunk

Only their forward passes are called. The backward pass of the recurrence is the same recurrence read from the end,

    g_t = dh_t + a_{t+1} g_{t+1},   dx_t = g_t,   da_t = g_t h_{t-1},   dh_0 = a_1 g_1

so a second call computes it. fla's own gives da through the logarithm, which is 0 / 0 at a decay of 0, and that of `chunk_hgrn`
drops the gradients of both states; here a decay of 0 is exact, log 0 = -inf being a factor of 0 inside the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.diagonal_scan.recurrence import unpacked
from models.ops.providers import NotCovered, require

CHUNK = 128  # tokens of a chunk of chunk_hgrn


def diagonal_scan(a: Tensor, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`models.ops.diagonal_scan.recurrence.recurrence` by fla's kernels; same shapes. h in the inputs' dtype, state float32.

    Raises NotCovered for complex numbers, for a decay below 0, which has no logarithm (to look, the host waits for the device),
    for float64, and for tensors that Triton cannot reach.
    """
    kind = torch.promote_types(a.dtype, x.dtype)
    if kind.is_complex:
        raise NotCovered("Provider 'fla' scans real numbers, and these are complex; use chunked.")
    for given in (a, x):
        require("fla", given)
    if (a < 0).any():
        raise NotCovered("Provider 'fla' takes the logarithm of a decay, and one is below 0; use chunked.")
    with torch.autocast(x.device.type, enabled=False):
        a, x, state = a.float(), x.float(), unpacked(state, x, torch.float32)
        if not x.shape[1]:
            return x.to(kind), state
        h, last = _Scan.apply(a, x, state)
    return h.to(kind), last


class _Scan(torch.autograd.Function):
    """a [b, t, d] or [d]; x [b, t, d]; state [b, d], all float32 -> h [b, t, d] and the last h."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, state: Tensor):
        h = _recurrence(a.log().expand(x.shape), x, state)
        ctx.save_for_backward(a, h, state)
        return h, h[:, -1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dh: Tensor, dlast: Tensor):
        a, h, state = ctx.saved_tensors
        gates = a.expand(h.shape).flip(1)
        later = torch.cat(
            [torch.ones_like(gates[:, :1]), gates[:, :-1]], 1
        )  # a_{t+1}; what comes after the text is dlast
        g = _recurrence(later.log(), dh.flip(1), dlast).flip(1)
        da = None
        if ctx.needs_input_grad[0]:
            da = g * torch.cat([state[:, None], h[:, :-1]], 1)
            da = da.sum((0, 1)) if a.dim() == 1 else da
        return da, g, gates[:, -1] * g[:, 0]


def _recurrence(log_a: Tensor, x: Tensor, state: Tensor) -> Tensor:
    """h [b, t, d] by the kernel that is the faster for the text's length."""
    from fla.ops.hgrn import chunk_hgrn, fused_recurrent_hgrn

    kernel = fused_recurrent_hgrn if x.shape[1] <= CHUNK else chunk_hgrn
    return kernel(x.contiguous(), log_a.contiguous(), initial_state=state.contiguous())[0]
