"""What a chunk teaches a gated network, and how far its columns are let grow; each with its backward pass by hand.

Both are elementwise but for sums along one axis; automatic differentiation would keep a dozen tables a chunk for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.autograd import by_hand
from models.ops.fast_weights.recurrence import FLOOR


class Taught(torch.autograd.Function):
    """`apply(both, hidden, rates)` -> what keys [.., c, 2 n] and values [.., c, n] are multiplied by to give the gradients.

    `both` [.., c, 2 n] are the gate g = k W_0 and the linear half l = k W_2, `hidden` [.., c, n] is h = v W_1^T, rates r are
    [.., c, 3]. With s for silu: (r_0 h l s'(g), r_2 h s(g)), and r_1 l s(g).
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor, hidden: Tensor, rates: Tensor):
        gate, linear = both.chunk(2, dim=-1)
        r0, r1, r2 = rates.split(1, dim=-1)
        share = gate.sigmoid()
        rest, silu = 1 - share, gate * share
        slope = torch.addcmul(share, silu, rest)
        risen = linear * slope
        ctx.save_for_backward(linear, hidden, rates, share, rest, silu, slope, risen)
        keys = torch.cat([risen * (r0 * hidden), silu * (r2 * hidden)], dim=-1)
        return keys, silu * linear * r1

    @staticmethod
    @by_hand
    def backward(ctx: Any, dkeys: Tensor, dvalues: Tensor):
        linear, hidden, rates, share, rest, silu, slope, risen = ctx.saved_tensors
        r0, r1, r2 = rates.split(1, dim=-1)
        dgate, dlinear = dkeys.chunk(2, dim=-1)
        through_gate, through_linear, through_value = dgate * risen, dlinear * silu, dvalues * silu
        dhidden = (through_gate * r0).addcmul_(through_linear, r2)
        products = through_gate * hidden, through_value * linear, through_linear * hidden
        drates = torch.stack([one.sum(-1) for one in products], dim=-1)
        bend = (share + slope).addcmul_(silu, share, value=-1).mul_(rest)  # the second derivative
        inner = dgate * (hidden * r0)
        dboth = torch.empty_like(dkeys)
        to_gate, to_linear = dboth.chunk(2, dim=-1)
        torch.mul(inner, slope, out=to_linear).addcmul_(through_value, r1)
        torch.mul(dlinear, hidden * r2, out=to_gate).addcmul_(dvalues, linear * r1).mul_(slope)
        to_gate.addcmul_(inner, bend.mul_(linear))
        return dboth, dhidden, drates


class Rescaled(torch.autograd.Function):
    """`apply(w, length)` -> w [.., in, out] with columns of `length` [.., 1, out]: `w length / (|w| + floor)`."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, length: Tensor):
        own = w.norm(dim=-2, keepdim=True)
        factor = length / (own + FLOOR)
        ctx.save_for_backward(w, own, factor)
        return w * factor

    @staticmethod
    @by_hand
    def backward(ctx: Any, dy: Tensor):
        w, own, factor = ctx.saved_tensors
        along = (w * dy).sum(-2, keepdim=True) / (own + FLOOR)
        turn = factor * along / own.clamp(min=torch.finfo(own.dtype).tiny)
        return torch.addcmul(dy * factor, w, turn, value=-1), along
