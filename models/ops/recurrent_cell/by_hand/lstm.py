"""The LSTM, with peepholes or without: forward, and backward by hand.

With a the sums in front of the gates and p the peepholes,

    dc_t = dh_t o (1 - tanh^2 c) + da_o p_o + (dc f + da_i p_i + da_f p_f)_{t+1},   dh_t = dy_t + R^T da_{t+1}
    da_o = dh tanh(c) o (1 - o),   da_i = dc z i (1 - i),   da_f = dc c_{t-1} f (1 - f),   da_z = dc i (1 - z^2)

Every right side is a carried slope times what is known beforehand, so peepholes cost the backward loop nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.recurrent_cell.by_hand.steps import (
    beside,
    columns,
    gates_of,
    product_of,
    recurrent_gradient,
    slots,
    units_gradient,
)


class LSTM(torch.autograd.Function):
    """`apply(x, recurrent, peephole, h, c)` -> h of all tokens [t, .., k] and the last c.

    Shapes: x [t, b, 4 k] or [t, h, b, 4 k], recurrent [4 k, k] or [h, 4 k, k], peephole [3, k] or [3, h, 1, k] or None; rows in
    the order input, forget, candidate, output, those of peepholes input, forget, output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, peephole: Tensor | None, h: Tensor, c: Tensor):
        hs, cs = (part.new_empty(len(x) + 1, *part.shape) for part in (h, c))
        hs[0], cs[0] = h, c
        flat, tanh_c = torch.empty_like(x), torch.empty_like(cs[1:])
        gates = gates_of(flat, 4)
        _forward(x, columns(recurrent, len(x)), peephole, gates, hs, cs, tanh_c)
        ctx.save_for_backward(recurrent, peephole, gates, hs, cs, tanh_c)
        return hs[1:], cs[-1].clone()

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor, dlast: Tensor):
        recurrent, peephole, gates, hs, cs, tanh_c = ctx.saved_tensors
        slopes, to_c, keep = _slopes(gates, cs, tanh_c, peephole)
        dh, dc = _backward(dy, dlast, slopes, to_c, keep, recurrent)
        dx = slopes.flatten(-2)
        dpeephole = None
        if peephole is not None:
            seen = {0: cs[:-1], 1: cs[:-1], 3: cs[1:]}
            dpeephole = torch.stack([units_gradient(slopes.select(-2, g) * one, hs.dim()) for g, one in seen.items()])
        return dx, recurrent_gradient(dx, hs[:-1]), dpeephole, dh, dc


def _forward(x, weights, peephole, gates, hs, cs, tanh_c) -> None:
    """Fill gates, outputs and cells token by token."""
    product, flat = product_of(hs[0]), gates.flatten(-2).unbind(0)
    x, hs, cs, tanh_c = (part.unbind(0) for part in (x, hs, cs, tanh_c))
    both, (i, f, z, o) = slots(gates, 0, 2), (slots(gates, g) for g in range(4))
    inner = None if peephole is None else torch.stack([peephole[0], peephole[1]], -2)
    for t in range(len(x)):
        product(x[t], hs[t], weights, out=flat[t])
        if peephole is not None:
            both[t].addcmul_(inner, beside(cs[t]))
        both[t].sigmoid_()
        z[t].tanh_()
        torch.mul(f[t], cs[t], out=cs[t + 1]).addcmul_(i[t], z[t])
        if peephole is not None:
            o[t].addcmul_(peephole[2], cs[t + 1])
        torch.mul(o[t].sigmoid_(), torch.tanh(cs[t + 1], out=tanh_c[t]), out=hs[t + 1])


def _slopes(gates, cs, tanh_c, peephole) -> tuple[Tensor, Tensor, Tensor]:
    """What the slopes of the gates' sums are multiples of, of dh the output's, of dc the others'; then dh's share in dc.

    And what is left of dc one token earlier.
    """
    i, f, z, o = gates.unbind(-2)
    slopes = gates * (1 - gates)
    slopes[..., 0, :] *= z
    slopes[..., 1, :] *= cs[:-1]
    torch.mul(i, 1 - z.square(), out=slopes[..., 2, :])
    slopes[..., 3, :] *= tanh_c
    to_c, keep = o * (1 - tanh_c.square()), f.contiguous()
    if peephole is not None:
        to_c.addcmul_(slopes[..., 3, :], peephole[2])
        keep = f.addcmul(slopes[..., 0, :], peephole[0]).addcmul_(slopes[..., 1, :], peephole[1])
    return slopes, to_c, keep


def _backward(dy, dlast, slopes, to_c, keep, recurrent) -> tuple[Tensor, Tensor]:
    """Turn the slopes into gradients, from the last token to the first; the gradients of the state before them."""
    product, flat = product_of(dlast), slopes.flatten(-2).unbind(0)
    output, others = slots(slopes, 3), slots(slopes, 0, 3)
    dy, to_c, keep = (part.unbind(0) for part in (dy, to_c, keep))
    dh, dc, nothing = dy[-1], dlast.clone(), torch.zeros_like(dlast)
    for t in reversed(range(len(dy))):
        dc.addcmul_(dh, to_c[t])
        output[t].mul_(dh)
        others[t].mul_(beside(dc))
        dc.mul_(keep[t])
        dh = product(dy[t - 1] if t else nothing, flat[t], recurrent)
    return dh, dc
