"""The diagonal recurrence of outer products in blocks of tokens, forward and backward written out.

    h_t = (1 - e_t f_t^T) * h_{t-1} + k_t u_t^T,   y_t = h_t^T q_t

A block's gates a_t = 1 - e_t f_t^T and writes are formed at once, in buffers that all blocks share; token by token is only one
fused multiply-add; reading is one batched product. Blocks are so short that their d * N numbers stay near the processor, and only
their first states are kept: the rest is computed again on the way back. With g_t the gradient of h_t:

    g_t = q_t dy_t^T + a_{t+1} * g_{t+1},   dq_t = h_t dy_t,   du_t = g_t^T k_t,   dk_t = g_t u_t
    df_t = -(g_t * h_{t-1})^T e_t,   de_t = -(g_t * h_{t-1}) f_t
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand

NUMBERS = 1 << 18  # of the states of a block
LONGEST = 64  # tokens of a block


def chunked(u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor | None = None):
    """`models.ops.diagonal_scan.recurrence.outer_recurrence` in blocks; same shapes.

    Half precision is computed in float32; autocast changes nothing.
    """
    dtype, kind = u.dtype, torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        state = u.new_zeros(u.shape[0], k.shape[2], u.shape[2]) if state is None else state
        if not u.shape[1]:
            return u, state.to(kind)
        # Time first, so that a block is one contiguous slice.
        inputs = (value.to(kind).transpose(0, 1).contiguous() for value in (u, f, k, e, q))
        y, last = _Outer.apply(*inputs, state.to(kind))
    return y.transpose(0, 1).to(dtype), last


def block_length(state: Tensor) -> int:
    """How many tokens a block has, for states [b, N, d]."""
    return max(1, min(LONGEST, NUMBERS // max(1, state.numel())))


class _Block:
    """Buffers [c + 1, b, N, d] of a block's states, of which the first is that before it, and [c, b, N, d] of its gates."""

    def __init__(self, state: Tensor, length: int):
        self.states, self.gates = state.new_empty(length + 1, *state.shape), state.new_empty(length, *state.shape)
        self.one = state.new_ones(())

    def fill(self, state: Tensor, u: Tensor, f: Tensor, k: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """States [c + 1, b, N, d] from the one before on, and gates [c, b, N, d], for u, f [c, b, d] and k, e [c, b, N]."""
        states, gates = self.states[: len(u) + 1], self.gates[: len(u)]
        states[0] = state
        torch.mul(k[..., None], u[:, :, None], out=states[1:])
        torch.addcmul(self.one, e[..., None], f[:, :, None], value=-1, out=gates)
        rows = states.unbind(0)
        for i, gate in enumerate(gates.unbind(0)):
            rows[i + 1].addcmul_(gate, rows[i])
        return states, gates


class _Outer(torch.autograd.Function):
    """u, f [t, b, d]; k, e, q [t, b, N]; state [b, N, d] -> y [t, b, d] and the last state."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, f: Tensor, k: Tensor, e: Tensor, q: Tensor, state: Tensor):
        length, y, kept = block_length(state), torch.empty_like(u), []
        block = _Block(state, min(length, len(u)))
        for first in range(0, len(u), length):
            kept.append(state)
            at = slice(first, first + length)
            states, _ = block.fill(state, u[at], f[at], k[at], e[at])
            y[at] = _times(q[at], states[1:])
            state = states[-1].clone()
        ctx.save_for_backward(u, f, k, e, q, *kept)
        return y, state

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        u, f, k, e, q, *kept = ctx.saved_tensors
        length, dy, g = block_length(dlast), dy.contiguous(), dlast
        block = _Block(dlast, min(length, len(u)))
        buffer = torch.empty_like(block.gates)
        du, df, dk, de, dq = (torch.empty_like(value) for value in (u, f, k, e, q))
        for first in reversed(range(0, len(u), length)):
            at = slice(first, first + length)
            states, gates = block.fill(kept.pop(), u[at], f[at], k[at], e[at])
            slopes = torch.mul(q[at][..., None], dy[at][:, :, None], out=buffer[: len(gates)])
            slopes[-1] += g
            rows, open_by = slopes.unbind(0), gates.unbind(0)
            for i in range(len(rows) - 2, -1, -1):
                rows[i].addcmul_(open_by[i + 1], rows[i + 1])
            g = open_by[0] * rows[0]
            dq[at], du[at], dk[at] = _times_t(dy[at], states[1:]), _times(k[at], slopes), _times_t(u[at], slopes)
            both = slopes.mul_(states[:-1])
            df[at], de[at] = _times(e[at], both), _times_t(f[at], both)
        return du, df.neg_(), dk, de.neg_(), dq, g


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    """Rows [c, b, N] times matrices [c, b, N, d]."""
    return torch.bmm(row.flatten(0, 1)[:, None], matrix.flatten(0, 1)).view(*row.shape[:2], -1)


def _times_t(row: Tensor, matrix: Tensor) -> Tensor:
    """Rows [c, b, d] times matrices [c, b, N, d] transposed; torch's product is fast in this order, not in the other."""
    return torch.bmm(row.flatten(0, 1)[:, None], matrix.flatten(0, 1).mT).view(*row.shape[:2], -1)
